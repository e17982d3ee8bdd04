"""Gold trees and coreference: read as they stand, carried to bytes and subwords, and refused where they are broken."""

import collections
import hashlib

import conllu
import numpy as np
import pytest

from tests.data import data_config
from train.config import DataConfig, InputError
from train.data import conllu_text, corpora, gold
from train.data.bpe import Bpe


def sentence(text: str, *heads: int, **more) -> str:
    """CoNLL-U of words with their heads; `misc` and `relations` by word number."""
    misc, relations = more.get("misc", {}), more.get("relations", {})
    lines = []
    for number, (word, head) in enumerate(zip(text.split(), heads, strict=True), 1):
        relation = relations.get(number, "root" if head == 0 else "dep")
        lines.append(
            "\t".join([str(number), word, "_", "X", "_", "_", str(head), relation, "_", misc.get(number, "_")])
        )
    return "\n".join(lines) + "\n\n"


LETTER = (
    "# newdoc id = letter\n# sent_id = 1\n"
    "1\tEmma\t_\tPROPN\t_\t_\t2\tnsubj\t_\tEntity=(e1-person)\n"
    "2\twrote\t_\tVERB\t_\t_\t0\troot\t_\t_\n"
    "3\ta\t_\tDET\t_\t_\t5\tdet\t_\tEntity=(e2-object\n"
    "4\tdéjà-vu\t_\tADJ\t_\t_\t5\tamod\t_\tEntity=(e3-abstract)\n"
    "5\tletter\t_\tNOUN\t_\t_\t2\tobj\t_\tEntity=e2)|SpaceAfter=No\n"
    "6\t.\t_\tPUNCT\t_\t_\t2\tpunct\t_\t_\n\n"
    "# sent_id = 2\n"
    "1\tShe\t_\tPRON\t_\t_\t4\tnsubj\t_\tEntity=(e1-person)\n"
    "2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "2\tdid\t_\tAUX\t_\t_\t4\taux\t_\t_\n"
    "3\tn't\t_\tPART\t_\t_\t4\tadvmod\t_\t_\n"
    "4\tsend\t_\tVERB\t_\t_\t0\troot\t_\t_\n"
    "4.1\tsend\t_\tVERB\t_\t_\t_\t_\t0:root\t_\n"
    "5-6\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "5\tde\t_\tADP\t_\t_\t7\tcase\t_\t_\n"
    "6\tel\t_\tDET\t_\t_\t7\tdet\t_\t_\n"
    "7\tit\t_\tPRON\t_\t_\t4\tobj\t_\tEntity=(e2-object)|SpaceAfter=No\n"
    "8\t!\t_\tPUNCT\t_\t_\t4\tpunct\t_\t_\n\n"
)


def many(count: int = 60) -> str:
    """Documents long enough for a study."""
    draw = np.random.default_rng(0)
    words = "letters words heads trees gold naïve tokens spans links bytes".split()
    found = []
    for number in range(count):
        found.append(f"# newdoc id = d{number}\n")
        for _ in range(6):
            chosen = draw.choice(words, 8)
            misc = {1: f"Entity=(e{number}-x)", 5: "SpaceAfter=No"}
            relations = {1: "nsubj", 3: "obj"}
            found.append(sentence(" ".join(chosen), 2, 0, 2, 3, 4, 4, 2, 2, misc=misc, relations=relations))
    return "".join(found)


def read(tmp_path, content: str):
    (tmp_path / "gold.conllu").write_text(content)
    return conllu_text.read(f"conllu:{tmp_path}/gold.conllu")


def config(tmp_path, content: str, **fields) -> DataConfig:
    (tmp_path / "gold.conllu").write_text(content)
    fields = {"seq_len": 32, "tune_fraction": 0.2, "test_fraction": 0.2} | fields
    return data_config(source=f"conllu:{tmp_path}/gold.conllu", **fields)


def test_text_words_heads_and_mentions(tmp_path):
    (document,), unit, report = read(tmp_path, LETTER)
    assert document.text.decode() == "Emma wrote a déjà-vu letter.\nShe didn't send del it!"
    words = [document.text[begin:end].decode() for begin, end in document.spans]
    assert words == "Emma wrote a déjà-vu letter . She did n't send del del it !".split()
    named = [(words[one], words[other], relation) for one, other, relation in document.links]
    assert named[:5] == [
        ("Emma", "wrote", "nsubj"),
        ("a", "letter", "det"),
        ("déjà-vu", "letter", "amod"),
        ("letter", "wrote", "obj"),
        (".", "wrote", "punct"),
    ]
    # A mention of several words stands at its head: `it` is linked to `letter` and not to `a`.
    assert named[-2:] == [("She", "Emma", "coref"), ("it", "letter", "coref")]
    assert (report.sentences, report.words, report.inexact, report.bad) == (2, 14, 2, [])
    assert unit == "block" and document.name == "gold.conllu#letter@0"


def test_mentions_that_nest_and_end_together():
    brackets = ["(1-a-(2)(3-b", "(4-c)", "3)1)", "", "(5[1/2]-x)", "2)", "(1-a)"]
    assert sorted(conllu_text._mentions(brackets)) == [(0, 0, "2"), (0, 2, "1"), (0, 2, "3"), (1, 1, "4"), (4, 4, "5"),
                                                       (6, 6, "1")]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "line", "said"),
    [
        ("1\ttwo\tcolumns\n\n", 1, "3 columns, not 10"),
        (sentence("a b", 2, 0).replace("\t0\t", "\tzero\t"), 2, "'zero' is not a valid"),
        (sentence("a b", 2, 0).replace("1\ta", "one\ta"), 1, "'one' is not a valid ID"),
        (sentence("a b c", 2, 0, 2).replace("2\tb", "4\tb"), 2, "word 4 where 2 is due"),
        (sentence("a b", 2, 0).replace("\t2\t", "\t_\t"), 1, "word 1 (a) has no head"),
        (sentence("a b", 2, 0).replace("2\tb", "2\t"), 2, "word 2 has no form"),
        ("1-2\t \t" + "\t".join("_" * 8) + "\n" + sentence("a b", 2, 0), 1, "word 1-2 has no form"),
        (sentence("a b", 3, 0), 1, "word 1 (a) has head 3 of 2 words"),
        (sentence("a b c d", 0, 3, 4, 2), 2, "(b) is its own ancestor, a cycle"),
        (sentence("a b", 1, 0), 1, "word 1 (a) is its own ancestor, a cycle"),
        ("1-2\tab\t" + "\t".join("_" * 8) + "\n\n", 0, "no word"),
    ],
)
def test_a_bad_sentence_is_skipped_and_counted(bad, line, said, tmp_path):
    """Its file, line and reason are named; more than 5 % of them are refused."""
    good = sentence("one two three", 2, 0, 2)
    documents, _, report = read(tmp_path, good * 2 + "# a comment\n" + bad + good * 20)
    assert report.sentences == 22 and len(report.bad) == 1
    assert sum(text.text.count(b"one two three") for text in documents) == 22
    where = f"gold.conllu line {2 * 4 + 1 + line}: " if line else "gold.conllu line 9: "
    assert report.bad[0].startswith(where) and said in report.bad[0]
    assert "1 bad sentences were skipped: gold.conllu line" in " ".join(report.notes())
    with pytest.raises(
        InputError, match="has 1 bad sentences of 20, and 5% is the most|has 2 bad sentences of 24"
    ) as e:
        read(tmp_path, good * 2 + bad + good * 20 + bad)
    assert said in str(e.value)


def test_a_byte_order_mark_takes_no_sentence_along(tmp_path):
    content = sentence("one two", 2, 0) + sentence("three", 0)
    ((document,), _, report) = read(tmp_path, "\ufeff" + content)
    assert document.text == b"one two\nthree" and (report.sentences, report.bad) == (2, [])


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        conllu_text.read(f"conllu:{tmp_path}/none.conllu")
    (tmp_path / "latin.conllu").write_bytes(LETTER.encode("latin-1"))
    with pytest.raises(InputError, match="latin.conllu is not UTF-8 text: byte 156 of"):
        conllu_text.read(f"conllu:{tmp_path}/latin.conllu")
    with pytest.raises(InputError, match="holds no sentence"):
        read(tmp_path, "# newdoc\n\n# text = nothing\n")


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
@pytest.mark.parametrize("piece", ["first", "last", "all"])
def test_links_of_tokens_are_those_of_their_words(tokenizer, piece, tmp_path):
    """Counted and compared as words: the tokens of a link, decoded, lie in the two words that the library names."""
    ours = config(tmp_path, many(), tokenizer=tokenizer, piece=piece, vocab_size=300)
    corpus = corpora.write_corpus(ours, tmp_path / "data")
    labels, bpe = corpus.gold, Bpe(corpus.tokenizer) if corpus.tokenizer else None
    assert corpus.unit == "document" and len(corpus.names) == 60 and labels.first == 0 and not len(labels.log_p)
    if bpe:
        assert corpus.vocab_size == 300 and corpus.bos == 299 and 256 < corpus.tokens.max() <= 299
    by_name = {name: index for index, name in enumerate(corpus.names)}
    parsed = conllu.parse((tmp_path / "gold.conllu").read_text())
    wanted = collections.Counter(word["deprel"] for one in parsed for word in one if word["head"])
    found = collections.Counter(labels.relations[relation] for relation in labels.links.relation)
    if piece != "all":
        assert {name: count for name, count in found.items() if name != "coref"} == wanted
        assert found["coref"] == 60 * 5
    for document, _, _ in [conllu_text.read(ours.source)]:
        for annotated in document:
            number = by_name[annotated.name]
            tokens = np.asarray(corpus.tokens[corpus.offsets[number] : corpus.offsets[number + 1]])[1:]
            ends = bpe.ends(tokens) if bpe else np.arange(1, len(tokens) + 1)
            assert ends[-1] == len(annotated.text) == corpus.num_bytes[number]
            text = bpe.decode(tokens).encode() if bpe else bytes(tokens.astype(np.uint8))
            assert text == annotated.text
            spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
            mine = labels.links.document == number
            tokens_of = collections.defaultdict(list)
            for word, (begin, end) in enumerate(annotated.spans):
                inside = [at for at, (first, last) in enumerate(spans) if first < end and last > begin]
                tokens_of[word] = {"first": inside[:1], "last": inside[-1:], "all": inside}[piece]
            expected = [
                (one + 1, other + 1, labels.relations.index(relation))
                for query, key, relation in annotated.links
                for one in tokens_of[query]
                for other in tokens_of[key]
                if one != other
            ]
            got = zip(*(column[mine].tolist() for column in labels.links[1:]), strict=True)
            assert sorted(got) == sorted(expected)


def test_what_does_not_align_is_counted():
    spans = np.array([(0, 3), (4, 7), (7, 8), (9, 12), (9, 12)])
    assert gold.num_shared(spans, np.array([3, 7, 8, 12])) == 0, "nor are a space before a word, a contraction's parts"
    assert gold.num_shared(spans, np.array([3, 8, 12])) == 2, "`7-8` is in the token of `4-7`"
    first, last = gold.pieces(spans, np.array([2, 3, 5, 7, 8, 12]))
    assert first.tolist() == [0, 2, 4, 5, 5] and last.tolist() == [1, 3, 4, 5, 5]


def test_links_across_a_cut_are_dropped(tmp_path):
    """Windows of 32 bytes of documents of about 200: what is kept lies in its window, at the same two tokens."""
    corpus = corpora.write_corpus(config(tmp_path, many()), tmp_path / "data")
    windows, links = corpora.eval_windows(corpus, "tune", 32), corpus.gold.links
    window, inside = gold.in_windows(links, windows)
    first, last = corpus.splits["tune"]
    of_split = (links.document >= first) & (links.document < last)
    assert 0.1 < len(window) / of_split.sum() < 0.95
    assert (inside.query < 32).all() and (inside.key < 32).all() and min(inside.query.min(), inside.key.min()) >= 0
    begin = corpus.offsets[inside.document] + windows.begin[window]
    whole = {(row[0], row[1], row[2], row[3]) for row in zip(*links, strict=True)}
    for column in (inside.query, inside.key):
        np.testing.assert_array_equal(windows.tokens[window, column], corpus.tokens[begin + column])
    back = zip(inside.document, inside.query + windows.begin[window], inside.key + windows.begin[window],
               inside.relation, strict=True)  # fmt: skip
    assert set(back) <= whole
    # Kept are exactly those whose tokens share a stretch of 32 as the windows cut them.
    together = (links.query // 32 == links.key // 32) & of_split
    together &= links.query < corpus.num_tokens[links.document]
    assert len(window) == together.sum()


def test_blocks_of_few_documents_keep_their_sentences(tmp_path):
    content = "# newdoc id = long\n" + "".join(
        sentence("Ada saw Ada again", 2, 0, 2, 2, misc={1: "Entity=(a-p)"}) for _ in range(600)
    )
    documents, unit, report = read(tmp_path, content)
    assert unit == "block" and len(documents) == 3 and report.sentences == 600
    assert b"\n".join(document.text for document in documents) == b"\n".join([b"Ada saw Ada again"] * 600)
    kept = sum(relation == "coref" for document in documents for *_, relation in document.links)
    assert (kept, report.cut) == (597, 2) and "2 coreference links were dropped" in " ".join(report.notes())


def test_the_notes_stay_with_the_corpus(tmp_path):
    corpus = corpora.write_corpus(config(tmp_path, many() + "1\tbroken\n\n"), tmp_path / "data")
    said = " ".join(corpus.notes)
    assert "360 sentences with 2,880 words." in said and "1 bad sentences were skipped: gold.conllu line " in said
    assert "links of 4 relations, from and to the last token of a word." in said
    digest = hashlib.sha256((tmp_path / "data" / "gold.npz").read_bytes()).hexdigest()
    assert digest in (tmp_path / "data" / "corpus.json").read_text()
