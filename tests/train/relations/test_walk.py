"""Walks over permutations: the text, its links against a slow reader, and the corpus that they make."""

import numpy as np
import pytest

from tests.data import data_config
from train.config import DataConfig, InputError
from train.data import corpora, gold, sources
from train.data.relations import language
from train.data.relations.walk import SYMBOLS, Walk


def config(**fields) -> DataConfig:
    return data_config(**{"source": "walk", "noise": 0.1, "max_bytes": 64 * 400, "tune_fraction": 0.1} | fields)


def followers(tokens: np.ndarray) -> np.ndarray:
    """How often symbol b follows a in one document: int (17, 17)."""
    counts = np.zeros((len(SYMBOLS) + 1,) * 2, int)
    np.add.at(counts, (tokens[1:-1], tokens[2:]), 1)
    return counts


def test_without_noise_a_document_walks_one_permutation_and_each_its_own():
    documents = language.documents(Walk(0.0, 64), 0, 0, 200)
    assert (documents.tokens[:, 0] == language.BOS).all() and set(np.unique(documents.tokens[:, 1:])) == {*range(1, 17)}
    transitions = np.stack([followers(tokens) > 0 for tokens in documents.tokens])
    assert transitions.sum(axis=2).max() == 1, "one symbol follows a symbol"
    assert transitions.sum(axis=1).max() == 1, "and no two are followed by one"
    assert len(np.unique(transitions.reshape(200, -1), axis=0)) > 190


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_a_walk_strays_to_a_uniform_symbol(noise):
    """In long documents the symbol that follows most often is the permutation's; the rest are equally likely."""
    tokens = Walk(noise, 1_000).sample(np.random.default_rng(3), 4).tokens
    counts = np.stack([followers(one) for one in tokens])[:, 1:, 1:]
    most = counts.argmax(axis=2)
    assert all(sorted(row) == list(range(16)) for row in most.tolist())
    of_all, ranked = counts.sum(), np.sort(counts, axis=2)
    keeps = 1 - noise + noise / 16
    assert abs(ranked[:, :, -1].sum() / of_all - keeps) < 4 * np.sqrt(keeps * (1 - keeps) / of_all)
    strays = np.where(np.arange(16) == most[:, :, None], 0, counts).sum(axis=(0, 1))
    assert strays.min() > 0.6 * strays.mean() and strays.max() < 1.5 * strays.mean()


@pytest.mark.parametrize("length", [18, 40])
def test_links_are_those_of_a_slow_reader(length):
    documents = language.documents(Walk(0.3, length), 1, 1_020, 1_030, number=7)
    found = []
    for number, tokens in enumerate(documents.tokens.tolist()):
        for query in range(length):
            induction = [key for key in range(1, query + 1) if tokens[key - 1] == tokens[query]]
            duplicate = [key for key in range(query) if tokens[key] == tokens[query]]
            found += [(number + 7, query, key, 0) for key in induction] + [
                (number + 7, query, key, 1) for key in duplicate
            ]
    assert list(zip(*(column.tolist() for column in documents.links), strict=True)) == found
    assert any(query == key for _, query, key, _ in found), "a symbol that follows itself is among them"
    assert Walk.relations == ("induction", "duplicate") and documents.links.key.dtype == np.int32


def test_a_document_depends_on_its_seed_and_number_alone():
    spoken = Walk(0.1, 64)
    whole = language.documents(spoken, 5, 0, 1_100)
    part = language.documents(spoken, 5, 1_000, 1_040)
    np.testing.assert_array_equal(part.tokens, whole.tokens[1_000:1_040])
    assert (language.documents(spoken, 6, 0, 8).tokens != whole.tokens[:8]).any()
    longer = language.documents(spoken, 5, 0, 8).tokens
    np.testing.assert_array_equal(longer, whole.tokens[:8])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpora.write_corpus(config(), tmp_path_factory.mktemp("data"))


def test_the_corpus(corpus):
    assert corpus.splits == {"train": (0, 340), "tune": (340, 380), "test": (380, 400)}
    assert (corpus.vocab_size, corpus.bos) == (17, language.BOS) and sources.vocab_size(config()) == 17
    assert sources.vocab_size(config(vocab_size=32)) == 32
    assert corpus.token == "word of the language" and corpus.unit == "document" and not corpus.has_floor
    assert len(np.unique(np.array(corpus.tokens).reshape(400, 64), axis=0)) == 400, "no document occurs twice"
    assert corpus.gold.relations == Walk.relations and len(corpus.gold.questions.query) == 0
    assert set(corpus.gold.links.document.tolist()) <= {*range(340, 400)}


def test_links_of_windows_name_equal_symbols(corpus):
    windows = corpora.eval_windows(corpus, "test", 64)
    window, links = gold.in_windows(corpus.gold.links, windows)
    tokens, own = windows.tokens[window], np.arange(len(window))
    np.testing.assert_array_equal(tokens[own, links.query], tokens[own, links.key - (links.relation == 0)])
    assert len(window) > 2_000 and set(links.relation.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vocab_size": 16}, "data.vocab_size=16 is too small: the language has 17 words"),
        ({"noise": 1.0}, "data.noise=1.0 must be at least 0 and below 1"),
        ({"document_tokens": 17}, "data.document_tokens=17 is too short for a walk over 16 symbols; give at least 18"),
        ({"max_bytes": 0}, "data.max_bytes=0 \\(for data.source=walk: tokens of all splits together\\)"),
        ({"source": "walks"}, "data.source='walks' is not known; the sources are .*, relations, walk"),
    ],
)
def test_bad_input(fields, said, tmp_path):
    with pytest.raises(InputError, match=said):
        corpora.write_corpus(config(**fields), tmp_path)
