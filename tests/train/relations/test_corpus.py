"""A relations language as a study's corpus."""

import json

import numpy as np
import pytest

from tests.data import data_config
from train.config import DataConfig, InputError
from train.data import corpora, sources
from train.data.relations import language, parse


def config(**fields) -> DataConfig:
    return data_config(**{"source": "relations", "max_bytes": 64 * 400, "tune_fraction": 0.1} | fields)


@pytest.fixture(scope="module", params=["4", "A,C,G", "2,F"])
def written(request, tmp_path_factory):
    ours = config(relations=request.param, noise=0.1)
    return ours, corpora.write_corpus(ours, tmp_path_factory.mktemp("data"))


def test_tokens_splits_and_vocabulary(written):
    ours, corpus = written
    spoken = parse.language(ours)
    assert corpus.splits == {"train": (0, 340), "tune": (340, 380), "test": (380, 400)}
    assert (corpus.num_bytes == 63).all() and corpus.unit == "document" and corpus.token == "word of the language"
    assert corpus.vocab_size == len(spoken.vocabulary) == sources.vocab_size(ours) and corpus.bos == language.BOS
    first = language.documents(spoken, 0, 0, 20)
    np.testing.assert_array_equal(corpus.tokens_of("test").reshape(20, 64), first.tokens)
    assert len(np.unique(np.array(corpus.tokens).reshape(400, 64), axis=0)) == 400, "no document occurs twice"


def test_labels_of_tune_and_test(written):
    """The labels of a document are those that the language gives it, whatever its number in the corpus."""
    ours, corpus = written
    gold, spoken = corpus.gold, parse.language(ours)
    assert gold.first == 340 and gold.relations == spoken.relations and len(gold.log_p) == 60 * 64
    for split, (first, last) in (("test", (0, 20)), ("tune", (20, 60))):
        theirs = language.documents(spoken, 0, first, last)
        begin, end = corpus.splits[split]
        for ours_, own in ((gold.links, theirs.links), (gold.questions, theirs.questions)):
            mine = (ours_.document >= begin) & (ours_.document < end)
            np.testing.assert_array_equal(ours_.document[mine] - begin, own.document)
            for one, other in zip(ours_[1:], own[1:], strict=True):
                np.testing.assert_array_equal(one[mine], other)
        np.testing.assert_array_equal(gold.log_p.reshape(60, 64)[begin - 340 : end - 340], theirs.log_p)


def test_more_training_text_leaves_tune_and_test(tmp_path):
    one = corpora.write_corpus(config(), tmp_path / "one")
    two = corpora.write_corpus(config(max_bytes=64 * 800, tune_fraction=0.05, test_fraction=0.025), tmp_path / "two")
    for split in ("tune", "test"):
        np.testing.assert_array_equal(one.tokens_of(split), two.tokens_of(split))
    assert one.fingerprint != two.fingerprint


def test_the_unigram_and_the_bigram_of_a_language(tmp_path):
    """The floor lies below both, and a language of fewer words than data.vocab_size leaves the rest unused."""
    corpus = corpora.write_corpus(config(vocab_size=300), tmp_path)
    begin, end = corpus.offsets_of("test")[[0, -1]] - corpus.offsets[corpus.gold.first]
    floor = -corpus.gold.log_p[begin:end].sum() / (20 * 63)
    assert corpus.vocab_size == 300 and corpus.tokens.max() < 162
    assert 2 < floor < corpora.bigram_loss(corpus, "test") < corpora.unigram_entropy(corpus) * 1.2 < np.log(162) * 1.2


def test_damage_to_the_labels_is_noticed(tmp_path):
    corpora.write_corpus(config(), tmp_path)
    content = bytearray((tmp_path / "gold.npz").read_bytes())
    content[-300] ^= 1
    (tmp_path / "gold.npz").write_bytes(content)
    with pytest.raises(InputError, match="gold.npz is not the file that was written"):
        corpora.open_corpus(tmp_path)
    (tmp_path / "gold.npz").unlink()
    with pytest.raises(InputError, match="gold.npz is missing"):
        corpora.open_corpus(tmp_path)
    assert "gold.npz" in json.loads((tmp_path / "corpus.json").read_text())


@pytest.mark.parametrize("tokens", [0, 64, 64 * 100])
def test_too_little(tokens, tmp_path):
    with pytest.raises(InputError, match="a language has no end, so say how much, at least") as error:
        corpora.write_corpus(config(max_bytes=tokens), tmp_path)
    enough = int(str(error.value).split("data.max_bytes=")[-1].rstrip("."))
    assert enough <= 64 * 200
    corpora.write_corpus(config(max_bytes=enough), tmp_path)
