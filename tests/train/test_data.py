import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from tests.data import data_config
from train.config import DataConfig, InputError
from train.data import corpora
from train.data.batches import Batches

WORDS = "the of and a to in is was that for it with as his on be at by had not are but from or have an they".split()


def story(seed: int, num_bytes: int) -> str:
    words = np.random.default_rng(seed).choice(WORDS, num_bytes)
    return " ".join(words)[:num_bytes]


def write_stories(folder, sizes) -> None:
    folder.mkdir(exist_ok=True)
    for seed, size in enumerate(sizes):
        (folder / f"story{seed:03}.txt").write_text(story(seed, size))


def config(source: str, **fields) -> DataConfig:
    fields = {"seq_len": 16, "max_bytes": 0, "tune_fraction": 0.2, "test_fraction": 0.2} | fields
    return data_config(source=source, **fields)


@pytest.fixture
def corpus(tmp_path):
    write_stories(tmp_path / "text", [*range(1, 40), 17, 33, 16, 200, 300])
    return corpora.write_corpus(config(f"file:{tmp_path}/text/*.txt"), tmp_path / "data")


def texts_of(corpus, split) -> list[bytes]:
    offsets = corpus.offsets_of(split)
    runs = [corpus.tokens[first:last] for first, last in itertools.pairwise(offsets)]
    assert all(run[0] == corpora.BOS and (run[1:] < corpora.BOS).all() for run in runs)
    return [bytes(run[1:].astype(np.uint8)) for run in runs]


def test_tokens_are_the_texts(corpus, tmp_path):
    assert isinstance(corpus.tokens, np.memmap) and corpus.tokens.dtype == np.uint16
    assert corpus.offsets.dtype == np.int64 and corpus.unit == "document"
    read = [text for split in ("train", "tune", "test") for text in texts_of(corpus, split)]
    assert read == [(tmp_path / "text" / name).read_bytes() for name in corpus.names]
    assert sorted(corpus.names) == [f"story{seed:03}.txt" for seed in range(44)]
    assert corpus.num_bytes.tolist() == [len(text) for text in read]


def test_splits_are_contiguous_and_share_no_document(corpus):
    assert [corpus.splits[split][0] for split in ("train", "tune", "test")] == [
        0,
        corpus.splits["train"][1],
        corpus.splits["tune"][1],
    ]
    assert corpus.splits["test"][1] == len(corpus.names)
    assert corpus.tokens_of("train").base is not None and len(corpus.tokens_of("test")) > 0
    assert sum(len(corpus.tokens_of(split)) for split in corpus.splits) == len(corpus.tokens)


def test_the_fingerprint_follows_content_alone(tmp_path):
    for folder in ("one", "two"):
        write_stories(tmp_path / folder, [200] * 40)
    one = corpora.write_corpus(config(f"file:{tmp_path}/one/*.txt"), tmp_path / "data1")
    two = corpora.write_corpus(config(f"file:{tmp_path}/two/*.txt"), tmp_path / "data2")
    assert one.fingerprint == two.fingerprint and one.source != two.source
    other = corpora.write_corpus(config(f"file:{tmp_path}/two/*.txt", test_fraction=0.4), tmp_path / "data3")
    assert other.fingerprint != one.fingerprint


def test_a_written_corpus_is_not_read_from_its_source_again(tmp_path):
    write_stories(tmp_path / "text", [100] * 40)
    first = corpora.write_corpus(config(f"file:{tmp_path}/text/*.txt"), tmp_path / "data")
    for path in (tmp_path / "text").iterdir():
        path.unlink()
    again = corpora.open_corpus(tmp_path / "data")
    assert again.fingerprint == first.fingerprint and again.splits == first.splits and again.names == first.names


def test_an_interrupted_write_is_done_again(tmp_path, monkeypatch):
    write_stories(tmp_path / "text", [100] * 40)
    monkeypatch.setattr(corpora, "_fingerprint", lambda recorded: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        corpora.write_corpus(config(f"file:{tmp_path}/text/*.txt"), tmp_path / "data")
    monkeypatch.undo()
    assert not (tmp_path / "data" / "corpus.json").exists()
    corpora.write_corpus(config(f"file:{tmp_path}/text/*.txt"), tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["corpus.json", "offsets.npy", "tokens.npy"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def rename_a_document(path):
    about = json.loads(path.read_text())
    about["names"][0] = "another"
    path.write_text(json.dumps(about))


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "corpus.json"])
@pytest.mark.parametrize(
    "damage",
    [flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.write_bytes(b""), "missing"],
)
def test_damage_names_the_file(corpus, tmp_path, name, damage):
    path = tmp_path / "data" / name
    path.unlink() if damage == "missing" else damage(path)
    with pytest.raises(InputError, match=f"{name} is .*--workdir"):
        corpora.open_corpus(tmp_path / "data")


def test_a_changed_name_is_noticed(corpus, tmp_path):
    rename_a_document(tmp_path / "data" / "corpus.json")
    with pytest.raises(InputError, match="corpus.json is not the file that was written"):
        corpora.open_corpus(tmp_path / "data")


def test_unigram_and_bigram_by_hand(corpus):
    train, test = texts_of(corpus, "train"), texts_of(corpus, "test")
    letters = b"".join(train)
    shares = [letters.count(byte) / len(letters) for byte in set(letters)]
    assert corpora.unigram_entropy(corpus) == pytest.approx(-sum(share * math.log(share) for share in shares))
    counts = np.full((257, 256), corpora.BIGRAM_ALPHA)
    for text in train:
        for before, after in itertools.pairwise([256, *text]):
            counts[before, after] += 1
    losses = [
        -math.log(counts[before, after] / counts[before].sum())
        for text in test
        for before, after in itertools.pairwise([256, *text])
    ]
    assert len(losses) == sum(map(len, test))
    assert corpora.bigram_loss(corpus, "test") == pytest.approx(np.mean(losses))


def test_a_batch_is_a_pure_function_of_seed_and_step():
    batches = Batches(num_windows=100, batch_size=8, seq_len=16, data_seed=3)
    whole = batches.starts(0, 60)
    assert whole.shape == (60, 8) and whole.dtype == np.int32
    assert (batches.starts(37, 5) == whole[37:42]).all()
    assert (Batches(100, 8, 16, 3).starts(59, 1) == whole[59]).all()
    assert (Batches(100, 8, 16, 4).starts(0, 60) != whole).mean() > 0.9


def test_every_epoch_has_every_window_once_in_another_order():
    order = Batches(num_windows=100, batch_size=8, seq_len=16, data_seed=0).starts(0, 25).reshape(2, 100)
    assert (np.sort(order) == 16 * np.arange(100)).all()
    assert (order[0] != order[1]).mean() > 0.9


def test_a_batch_larger_than_the_corpus():
    starts = Batches(num_windows=3, batch_size=8, seq_len=16, data_seed=0).starts(6, 3)
    assert (np.bincount(starts.ravel() // 16, minlength=3) == 8).all()


def test_training_windows_fit_the_train_split(corpus):
    num_windows = corpus.num_windows("train", 16)
    starts = Batches(num_windows, num_windows, 16, 0).starts(0, 1)
    assert starts.max() + 17 <= len(corpus.tokens_of("train")) < starts.max() + 17 + 16


@pytest.mark.parametrize("seq_len, stride", [(16, None), (16, 16), (16, 5), (16, 1), (1, 1), (400, 100)])
@pytest.mark.parametrize("split", ["tune", "test", "train"])
def test_evaluation_windows_by_brute_force(corpus, split, seq_len, stride):
    windows = corpora.eval_windows(corpus, split, seq_len, stride)
    stride = stride or seq_len
    expected, (first_document, last_document) = [], corpus.splits[split]
    for document in range(first_document, last_document):
        tokens = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist()
        counted, begin = 0, 0
        while counted < len(tokens) - 1:
            window = tokens[begin : begin + seq_len + 1]
            expected.append((window, len(window) - 1, counted - begin, len(window) - 1, document))
            counted = begin + len(window) - 1
            begin += stride
    assert windows.tokens.shape == (len(expected), seq_len + 1) and windows.tokens.dtype == np.uint16
    padded = [window + [0] * (seq_len + 1 - len(window)) for window, *_ in expected]
    assert windows.tokens.tolist() == padded
    bounds = zip(windows.length, windows.first, windows.last, windows.document, strict=True)
    assert list(bounds) == [tuple(rest) for _, *rest in expected]
    counts = np.bincount(windows.document, windows.last - windows.first)[first_document:]
    assert (counts == corpus.num_bytes[first_document:last_document]).all()


@pytest.mark.parametrize("stride", [0, 17, -1])
def test_a_stride_that_would_leave_tokens_out(corpus, stride):
    with pytest.raises(InputError, match=f"eval.stride={stride} must be from 1 to data.seq_len=16"):
        corpora.eval_windows(corpus, "test", 16, stride)


def test_importing_data_is_quick():
    code = "import sys, train.data; print([m for m in ('grain', 'jax', 'tensorflow_datasets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_failed_write_leaves_no_corpus(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        corpora.write_corpus(config(f"file:{tmp_path}/none.txt"), tmp_path / "data")
    assert not (tmp_path / "data").exists()
