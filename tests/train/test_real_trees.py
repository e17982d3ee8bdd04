"""Gold trees of a real file, against the conllu library: pytest tests/train/test_real_trees.py --conllu=FILE.

docs/results/gold_text.md has the outcome on English EWT and GUM.
"""

import collections

import conllu
import numpy as np
import pytest

from train.data import bpe, conllu_text, gold


@pytest.fixture(scope="module")
def trees(request):
    file = request.config.getoption("--conllu")
    if not file:
        pytest.skip("needs --conllu=FILE")
    with open(file, encoding="utf-8") as opened:
        parsed = conllu.parse(opened.read())
    return parsed, *conllu_text.read(f"conllu:{file}")


def words_of(sentence):
    return [word for word in sentence if isinstance(word["id"], int)]


def test_sentences_words_and_relations_are_the_librarys(trees):
    parsed, documents, _, report = trees
    assert not report.bad and report.sentences == len(parsed)
    assert sum(len(document.spans) for document in documents) == sum(len(words_of(one)) for one in parsed)
    wanted = collections.Counter(word["deprel"] for one in parsed for word in words_of(one) if word["head"])
    found = collections.Counter(relation for document in documents for *_, relation in document.links)
    assert {name: count for name, count in found.items() if name != "coref"} == wanted


def test_every_gold_head_is_a_word_of_the_text(trees):
    """A word's bytes are its form but for the parts of a contraction, which share the bytes of the whole."""
    parsed, documents, *_ = trees
    forms = iter([word["form"] for one in parsed for word in words_of(one)])
    heads = 0
    for document in documents:
        own = [document.text[begin:end].decode() for begin, end in document.spans]
        spans = collections.Counter(map(tuple, document.spans.tolist()))
        for span, text in zip(map(tuple, document.spans.tolist()), own, strict=True):
            form = next(forms)
            assert text and (text == form or spans[span] > 1 or form in ("", "_")), (text, form)
        for query, key, relation in document.links:
            assert 0 <= query < len(own) and 0 <= key < len(own) and query != key
            heads += relation != "coref"
    assert heads == sum(bool(word["head"]) for one in parsed for word in words_of(one))


def test_bytes_and_subwords_give_the_text_back(trees):
    """And each label's token holds bytes of its word."""
    _, documents, *_ = trees
    texts = [document.text for document in documents]
    tokenizer = bpe.Bpe(bpe.trained(texts, bpe.DEFAULT_VOCAB_SIZE))
    for document, tokens in zip(documents, tokenizer.encode(texts), strict=True):
        assert tokenizer.decode(tokens).encode() == document.text
        for ends in (tokenizer.ends(tokens), np.arange(1, len(document.text) + 1)):
            starts = np.concatenate([[0], ends[:-1]])
            for token in gold.pieces(document.spans, ends):
                assert (starts[token] < document.spans[:, 1]).all() and (ends[token] > document.spans[:, 0]).all()
