"""BPE: any text comes back, only the train split teaches it, and losses per byte compare with those of bytes."""

import json
import math

import numpy as np
import pytest

from tests.data import data_config
from tests.train.test_conllu import many
from train.config import InputError
from train.data import bpe
from train.data.corpora import bigram_loss, eval_windows, open_corpus, write_corpus

TEXTS = [b"the cat sat on the mat. the cat sat.", "naïve déjà-vu über 東京 🙂 the cat".encode(), b"\n\t  tabs\n"]


def words(seed: int) -> str:
    return " ".join(
        np.random.default_rng(seed).choice("the cat sat on a mat with nine lives and naïve thoughts".split(), 300)
    )


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for seed in range(60):
        (folder / f"{seed}.txt").write_text(words(seed))
    shared = {"source": f"file:{folder}/*.txt", "seq_len": 32, "tune_fraction": 0.2, "test_fraction": 0.2}
    return [
        write_corpus(data_config(**shared, **fields), folder / "data" / fields["tokenizer"])
        for fields in ({"tokenizer": "bytes"}, {"tokenizer": "bpe", "vocab_size": 320})
    ], folder


def test_any_text_comes_back():
    tokenizer = bpe.Bpe(bpe.trained(TEXTS[:1], 280))
    unseen = [*TEXTS, bytes(range(1, 128)), "".join(map(chr, range(0x100, 0x600))).encode()]
    for text, ids in zip(unseen, tokenizer.encode(unseen), strict=True):
        assert tokenizer.decode(ids).encode() == text
        ends = tokenizer.ends(ids)
        assert ends[-1] == len(text) and (np.diff(ends) > 0).all() and ids.max() < 279
    assert len(tokenizer.encode(TEXTS[:1])[0]) < len(TEXTS[0]) / 2, "it merges"


def test_the_same_text_trains_the_same_tokenizer():
    assert bpe.trained(TEXTS * 20, 300) == bpe.trained(TEXTS * 20, 300) != bpe.trained(TEXTS * 20, 301)


def test_documents_splits_and_bytes_are_those_of_bytes(corpora):
    (plain, pieces), folder = corpora
    assert pieces.names == plain.names and pieces.splits == plain.splits
    assert pieces.num_bytes.tolist() == plain.num_bytes.tolist()
    assert pieces.num_tokens.sum() < 0.5 * plain.num_tokens.sum()
    assert pieces.vocab_size == 320 and pieces.bos == 319 and pieces.token == "BPE piece" and plain.token == "byte"
    tokenizer = bpe.Bpe(pieces.tokenizer)
    for index, name in enumerate(pieces.names):
        tokens = np.asarray(pieces.tokens[pieces.offsets[index] : pieces.offsets[index + 1]])
        assert tokens[0] == 319 and (tokens[1:] < 319).all()
        assert tokenizer.decode(tokens[1:]) == (folder / name).read_text()
    assert pieces.bytes_per_token("test") == pytest.approx(
        np.diff([0, plain.num_bytes[slice(*plain.splits["test"])].sum()])[0]
        / pieces.num_tokens[slice(*pieces.splits["test"])].sum()
    )


def test_only_the_train_split_teaches(corpora):
    (plain, pieces), folder = corpora
    first, last = plain.splits["train"]
    assert pieces.tokenizer == bpe.trained([(folder / name).read_bytes() for name in plain.names[first:last]], 320)
    assert pieces.tokenizer != bpe.trained([(folder / name).read_bytes() for name in plain.names], 320)


def test_the_tokenizer_is_kept_and_checked(corpora, tmp_path):
    (_, pieces), folder = corpora
    path = folder / "data" / "bpe" / "tokenizer.json"
    assert path.read_text() == pieces.tokenizer
    path.write_text(pieces.tokenizer + " ")
    with pytest.raises(InputError, match="tokenizer.json is not the file that was written"):
        open_corpus(folder / "data" / "bpe")
    path.write_text(pieces.tokenizer)
    assert open_corpus(folder / "data" / "bpe").fingerprint == pieces.fingerprint
    assert json.loads((folder / "data" / "bpe" / "corpus.json").read_text())["bytes"] == pieces.num_bytes.tolist()


def test_windows_and_the_bigram_count_pieces(corpora):
    (plain, pieces), _ = corpora
    windows = eval_windows(pieces, "test", 32)
    first, last = pieces.splits["test"]
    assert (windows.last - windows.first).sum() == pieces.num_tokens[first:last].sum()
    # Fewer bits a byte than the bigram of bytes needs, since a piece is a word or so.
    per_byte = [bigram_loss(each, "test") / math.log(2) / each.bytes_per_token("test") for each in (plain, pieces)]
    assert per_byte[1] < per_byte[0]


def test_gold_labels_lie_on_pieces(tmp_path):
    """As tests/train/test_conllu.py, here with the vocabulary's default size."""
    (tmp_path / "gold.conllu").write_text(many())
    fields = {"seq_len": 16, "tune_fraction": 0.2, "test_fraction": 0.2, "tokenizer": "bpe"}
    corpus = write_corpus(data_config(source=f"conllu:{tmp_path}/gold.conllu", **fields), tmp_path / "data")
    assert corpus.vocab_size == bpe.DEFAULT_VOCAB_SIZE and corpus.gold.links.key.min() >= 1
    assert (corpus.gold.links.query <= corpus.num_tokens[corpus.gold.links.document]).all()
