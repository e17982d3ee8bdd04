"""data.labelled: text with gold links beside the text that is trained on, under one tokenizer."""

import dataclasses
import json

import numpy as np
import pytest

from configs import default
from tests.data import data_config
from tests.train.test_conllu import many, sentence
from tests.train.test_preview import printed
from train.config import DataConfig, InputError, freeze
from train.data import conllu_text, corpora, documents, gold
from train.data.bpe import Bpe

WORDS = "the of and a to in is was that for it with as his on be at by had not are but from or have an they".split()


def config(tmp_path, content: str, **fields) -> DataConfig:
    """Plain text in 40 files, and gold text."""
    draw = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(" ".join(draw.choice(WORDS, 120)))
    (tmp_path / "gold.conllu").write_text(content)
    fields = {"seq_len": 32, "tune_fraction": 0.2, "test_fraction": 0.2} | fields
    return data_config(source=f"file:{tmp_path}/*.txt", labelled=f"conllu:{tmp_path}/gold.conllu", **fields)


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    ours = config(folder, many(), tokenizer=request.param, vocab_size=300, piece="all")
    return ours, corpora.write_corpus(ours, folder / "data"), folder / "data"


def test_what_is_trained_on_is_as_without_it(written, tmp_path):
    ours, corpus, _ = written
    plain = corpora.write_corpus(data_config(**{**vars(ours), "labelled": ""}), tmp_path)
    assert plain.labelled is None and plain.splits == corpus.splits and plain.names == corpus.names
    assert plain.tokenizer == corpus.tokenizer and corpus.gold is None
    np.testing.assert_array_equal(plain.tokens, corpus.tokens)
    assert plain.fingerprint != corpus.fingerprint


def test_every_document_is_measured_in_one_split_under_the_same_tokenizer(written):
    ours, corpus, _ = written
    labelled, annotated = corpus.labelled, conllu_text.read(ours.labelled)[0]
    same = ("tokenizer", "vocab_size", "bos")
    assert [getattr(labelled, name) for name in same] == [getattr(corpus, name) for name in same]
    assert labelled.unit == "document" and labelled.source == ours.labelled and labelled.gold.first == 0
    (first, middle), (begin, end) = labelled.splits["tune"], labelled.splits["test"]
    assert (first, middle, end) == (0, begin, 60) and 15 < begin < 45, "tune and test in equal parts, as in the config"
    texts = {document.name: document.text for document in annotated}
    assert sorted(labelled.names) == sorted(texts)
    for number, name in enumerate(labelled.names):
        tokens = np.asarray(labelled.tokens[labelled.offsets[number] : labelled.offsets[number + 1]])
        text = Bpe(labelled.tokenizer).decode(tokens[1:]).encode() if labelled.tokenizer else bytes(tokens[1:].tolist())
        assert tokens[0] == labelled.bos and text == texts[name]
        assert labelled.num_bytes[number] == len(text)


def test_windows_of_labelled_text_have_its_links(written):
    """What a measurement does: the words of a link, read from its window, are those of the file."""
    ours, corpus, _ = written
    labelled, words = corpus.labelled, set()
    for split in ("tune", "test"):
        windows = corpora.eval_windows(labelled, split, 32)
        window, links = gold.in_windows(labelled.gold.links, windows)
        assert len(window) > 500 and (links.query != links.key).all()
        query, key = (windows.tokens[window, column] for column in (links.query, links.key))
        words |= {(int(one), int(other)) for one, other in zip(query, key, strict=True)}
        assert set(labelled.gold.relations) == {"coref", "dep", "nsubj", "obj"}
    assert len(words) > 20 and labelled.bos not in {token for pair in words for token in pair}


def test_the_fingerprint_covers_it_and_damage_is_noticed(tmp_path):
    one = corpora.write_corpus(config(tmp_path, many()), tmp_path / "one")
    other = corpora.write_corpus(config(tmp_path, many(61)), tmp_path / "other")
    assert one.fingerprint != other.fingerprint and one.labelled.fingerprint != other.labelled.fingerprint
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert corpora.open_corpus(tmp_path / "one").labelled.fingerprint == one.labelled.fingerprint
    for name in ("tokens.npy", "gold.npz", "corpus.json"):
        content = (tmp_path / "one" / "labelled" / name).read_bytes()
        (tmp_path / "one" / "labelled" / name).write_bytes((tmp_path / "other" / "labelled" / name).read_bytes())
        with pytest.raises(InputError, match="labelled/.* is not the file that was written"):
            corpora.open_corpus(tmp_path / "one")
        (tmp_path / "one" / "labelled" / name).write_bytes(content)
    for name in ("tokens.npy", "offsets.npy", "gold.npz", "corpus.json"):  # all of another study's
        (tmp_path / "one" / "labelled" / name).write_bytes((tmp_path / "other" / "labelled" / name).read_bytes())
    with pytest.raises(InputError, match="labelled/corpus.json is not the file that was written"):
        corpora.open_corpus(tmp_path / "one")


def test_a_document_keeps_its_split_and_one_that_is_trained_on_is_left_out(tmp_path):
    ours = config(tmp_path, many())
    records = [(document.name, document.text) for document in conllu_text.read(ours.labelled)[0]]
    whole, part = documents.beside(records, [], ours), documents.beside(records[::2], [], ours)
    assert {*part["tune"]} <= {*whole["tune"]} and {*part["test"]} <= {*whole["test"]}
    other = documents.beside(records, [], dataclasses.replace(ours, split_seed=3))
    assert {*other["test"]} != {*whole["test"]} and {*other["test"], *other["tune"]} == {*whole["test"], *whole["tune"]}
    without = documents.beside(records, whole["tune"][:3], ours)
    assert without == {"tune": whole["tune"][3:], "test": whole["test"]}
    alone = documents.beside(records[:2], [], ours)
    assert len(alone["tune"]) == len(alone["test"]) == 1


def test_few_documents_are_cut_into_blocks(tmp_path):
    content = "# newdoc id = long\n" + "".join(sentence(f"Ada saw {number}", 2, 0, 2) for number in range(1_500))
    labelled = corpora.write_corpus(config(tmp_path, content), tmp_path / "data").labelled
    assert labelled.unit == "block" and len(labelled.names) > 3 and labelled.names[0].startswith("gold.conllu#long@")


def test_labels_that_no_token_bears_alone_are_counted_and_listed(tmp_path):
    """`del` shows neither of its parts, so a link between them has one token at both ends."""
    contraction = "1-2\tdel\t" + "\t".join("_" * 8) + "\n" + sentence("de el libro", 3, 3, 0, relations={1: "case"})
    corpus = corpora.write_corpus(config(tmp_path, many() + contraction), tmp_path / "data")
    assert not any("dropped" in note for note in corpus.notes), "each part is linked to `libro`, whose token is its own"
    inner = "1-2\tdel\t" + "\t".join("_" * 8) + "\n" + sentence("de el libro", 2, 3, 0, relations={1: "case"})
    corpus = corpora.write_corpus(config(tmp_path, many() + inner), tmp_path / "inner")
    (dropped,) = [note for note in corpus.notes if "dropped" in note]
    assert dropped == ("Labelled text: 1 links were dropped, whose words share the token that bears them: case 1.")
    links = corpus.labelled.gold.links
    assert (links.query != links.key).all()
    assert "Labelled text: 361 sentences with 2,883 words." in corpus.notes
    assert json.loads((tmp_path / "inner" / "labelled" / "corpus.json").read_text())["source"].startswith("conllu:")


@pytest.mark.parametrize(
    ("labelled", "said"),
    [
        (
            "conll:gold",
            "data.labelled='conll:gold' has no gold links; text that has them is conllu:PATH-or-glob and tfds",
        ),
        ("file:{0}/1.txt", "has no gold links"),
        ("conllu:{0}/none.conllu", "none.conllu does not exist"),
        ("conllu:{0}/roots.conllu", "has 40 documents and no link in them: every word is a root"),
        ("conllu:{0}/one.conllu", "has 1 document that data.source does not train on, and tune and test need one each"),
    ],
)
def test_bad_input(labelled, said, tmp_path):
    ours = config(tmp_path, many())
    roots = "".join(f"# newdoc id = {number}\n" + sentence(f"word{number}", 0) for number in range(40))
    (tmp_path / "roots.conllu").write_text(roots)
    (tmp_path / "one.conllu").write_text(sentence("one two", 2, 0))
    with pytest.raises(InputError, match=said):
        corpora.write_corpus(data_config(**{**vars(ours), "labelled": labelled.format(tmp_path)}), tmp_path / "data")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "conllu:a", "labelled": "conllu:a"}, "data.labelled=conllu:a is data.source"),
        ({"source": "relations", "labelled": "conllu:a"}, "is text, and data.source=relations has no words for it"),
        ({"source": "walk", "labelled": "conllu:a"}, "is text, and data.source=walk has no words for it"),
    ],
)
def test_what_cannot_stand_beside_it(fields, said):
    values = default.get_config().to_dict()
    values["data"].update(fields)
    with pytest.raises(InputError, match=said):
        freeze(values)


def test_the_preview_shows_both(tmp_path):
    ours = config(tmp_path, many())
    text, corpus = printed(ours), corpora.write_corpus(ours, tmp_path / "data")
    above, below = text.split("Text with gold links that nobody trains on:")
    assert " nsubj" in below and " nsubj" not in above and corpus.fingerprint in below
    assert "Document gold.conllu#d" in below and "dropped, since a window of 32 tokens" in below
    assert "Labelled text: 360 sentences" in above
