"""The tokens of a study: written once into the workdir, opened by every run, cut into training and evaluation windows.

A document is BOS and then its tokens: the bytes of its UTF-8 text (BOS is token 256), or the words of a relations
language. The documents of the train split come first, then those of tune, then those of test, so that each split is
one run of tokens.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from train import gold, sources
from train.config import DataConfig, InputError
from train.gold import Gold
from train.sources import BOS, VOCAB_SIZE

# Add-alpha smoothing of the bigram model; on megabytes of English its loss moves by .3 % from .01 to 1.
BIGRAM_ALPHA = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """All documents of a study. `first` and `last` are half-open everywhere."""

    tokens: np.ndarray  # uint16 (tokens,), memory-mapped
    offsets: np.ndarray  # int64 (documents + 1,): document d is tokens[offsets[d]:offsets[d + 1]]
    names: tuple[str, ...]  # of documents
    splits: dict[str, tuple[int, int]]  # train, tune, test -> (first, last) document
    source: str
    unit: str  # 'document': a record of the source; 'block': part of one, because the source has few records
    fingerprint: str  # sha256 over tokens, offsets, names and splits
    vocab_size: int = VOCAB_SIZE
    bos: int = BOS
    gold: Gold | None = None

    @property
    def num_bytes(self) -> np.ndarray:
        """Bytes of each document's text, which is the number of its targets: int64 (documents,)."""
        return np.diff(self.offsets) - 1

    @property
    def has_floor(self) -> bool:
        """Whether a language wrote the text, so that the least possible loss of tune and test is known."""
        return self.gold is not None and len(self.gold.log_p) > 0

    @property
    def token(self) -> str:
        """What a token is, in words."""
        return "word of the language" if self.has_floor else "byte"

    def offsets_of(self, split: str) -> np.ndarray:
        """Offsets into `tokens` of the split's documents, and the end of the last: int64 (documents of it + 1,)."""
        first, last = self.splits[split]
        return self.offsets[first : last + 1]

    def tokens_of(self, split: str) -> np.ndarray:
        """The split's tokens, uint16 (n,); those of train begin at token 0."""
        offsets = self.offsets_of(split)
        return self.tokens[offsets[0] : offsets[-1]]

    def num_windows(self, split: str, seq_len: int) -> int:
        """Packed windows of seq_len inputs, and one target more, that the split's tokens make."""
        return (len(self.tokens_of(split)) - 1) // seq_len


def load_or_write(config: DataConfig, folder: str | os.PathLike) -> Corpus:
    """The corpus in `folder`, written first if there is none. Once it stands the source is not consulted again."""
    if not (Path(folder) / "corpus.json").exists():
        write_corpus(config, folder)
    return open_corpus(folder)


def write_corpus(config: DataConfig, folder: str | os.PathLike) -> Corpus:
    """Reads config.source and writes tokens.npy, offsets.npy, gold.npz where there are labels, and corpus.json last.

    Raises:
      InputError: the source is unknown, unreadable, too short, or has more tokens than an int32 can count.
    """
    contents = sources.read(config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recorded = {"names": contents.names, "splits": contents.splits}
    # Not through a memory map: on a full disk that ends the process without a word.
    for name, array in (("tokens.npy", contents.tokens), ("offsets.npy", contents.offsets)):
        with _replacing(folder / name) as file:
            np.save(file, array)
        recorded[name] = _sha256(array)
    if (contents.vocab_size, contents.bos) != (VOCAB_SIZE, BOS):
        recorded |= {"vocab_size": contents.vocab_size, "bos": contents.bos}
    if contents.gold:
        labels = contents.gold.as_bytes()
        with _replacing(folder / "gold.npz") as file:
            file.write(labels)
        recorded["gold.npz"] = hashlib.sha256(labels).hexdigest()
    about = {"source": config.source, "unit": contents.unit, "fingerprint": _fingerprint(recorded), **recorded}
    with _replacing(folder / "corpus.json") as file:
        file.write(json.dumps(about, indent=1).encode())
    return open_corpus(folder)


def open_corpus(folder: str | os.PathLike) -> Corpus:
    """The corpus in `folder`, every byte of it checked.

    Raises:
      InputError: a file is missing or is not the one that was written.
    """
    folder = Path(folder)
    try:
        recorded = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        source, unit, fingerprint = (recorded.pop(key) for key in ("source", "unit", "fingerprint"))
        whole = fingerprint == _fingerprint(recorded)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / "corpus.json") from error
    if not whole:
        raise _damaged(folder / "corpus.json")
    arrays = []
    for name in ("tokens.npy", "offsets.npy"):
        try:
            arrays.append(np.load(folder / name, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(folder / name) from error
        if _sha256(arrays[-1]) != recorded[name]:
            raise _damaged(folder / name)
    splits = {split: tuple(bounds) for split, bounds in recorded["splits"].items()}
    names, offsets = tuple(recorded["names"]), np.array(arrays[1])
    return Corpus(
        arrays[0],
        offsets,
        names,
        splits,
        source,
        unit,
        fingerprint,
        vocab_size=recorded.get("vocab_size", VOCAB_SIZE),
        bos=recorded.get("bos", BOS),
        gold=_open_gold(folder / "gold.npz", recorded["gold.npz"]) if "gold.npz" in recorded else None,
    )


def _open_gold(path: Path, digest: str) -> Gold:
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(path)
    return gold.from_bytes(content)


def _damaged(path: Path) -> InputError:
    why = "is not the file that was written" if path.exists() else "is missing"
    return InputError(
        f"{path} {why}; the cells of this study were trained on it. Restore it from a copy, or start again with a new "
        "--workdir."
    )


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is whole."""
    temporary = path.with_name(f"{path.name}.partial")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def _fingerprint(recorded: dict) -> str:
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()


def unigram_entropy(corpus: Corpus) -> float:
    """Entropy in nats/token of the tokens of the train split: what a model scores that knows their frequencies only."""
    counts = np.bincount(corpus.tokens_of("train"))
    counts[corpus.bos] = 0
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))


def bigram_loss(corpus: Corpus, split: str) -> float:
    """Loss in nats/token, on every token of every document of `split`, of a bigram model fitted to the train split."""
    size = corpus.vocab_size

    def pairs(split: str) -> np.ndarray:
        tokens = corpus.tokens_of(split).astype(np.int64)
        counts = np.bincount(tokens[:-1] * size + tokens[1:], minlength=size**2)
        return np.delete(counts.reshape(size, size), corpus.bos, axis=1)  # a BOS is never a target

    smoothed = pairs("train") + BIGRAM_ALPHA
    observed = pairs(split)
    return float(-np.sum(observed * np.log(smoothed / smoothed.sum(1, keepdims=True))) / observed.sum())


@dataclasses.dataclass(frozen=True)
class Batches:
    """The order of the training windows: a pure function of (data seed, step), reshuffled every epoch.

    Every cell and replica with the same data seed sees the same batches.
    """

    num_windows: int
    batch_size: int  # windows of the whole batch, all processes together
    seq_len: int  # window w begins at token w * seq_len and has seq_len + 1 tokens
    data_seed: int  # 0 ... 2**32 - 1

    def starts(self, first_step: int, num_steps: int, process_index: int = 0, process_count: int = 1) -> np.ndarray:
        """First tokens of the windows of some steps: int32 (num_steps, batch_size / process_count).

        A process gets its contiguous part of every batch, so the batches do not depend on the number of processes.

        Raises:
          ValueError: the batch does not divide over the processes.
        """
        rows, rest = divmod(self.batch_size, process_count)
        if rest:
            raise ValueError(f"batch_size={self.batch_size} does not divide over {process_count} processes.")
        steps = np.arange(first_step, first_step + num_steps)[:, None]
        elements = steps * self.batch_size + process_index * rows + np.arange(rows)
        epochs, places = np.divmod(elements, self.num_windows)
        windows = np.empty(elements.shape, np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            windows[here] = _epoch_order(self.num_windows, self.data_seed, int(epoch))[places[here]]
        return windows * np.int32(self.seq_len)


@functools.lru_cache(maxsize=8)  # the replicas of a cell, and the cells, ask for the same ones
def _epoch_order(num_windows: int, data_seed: int, epoch: int) -> np.ndarray:
    """The windows in the order of one epoch: int32 (num_windows,).

    Grain draws an epoch at a time: a window at a time, through its shuffle, took 12 to 16 us each.
    """
    import grain  # slow, and `--help` needs no data

    epochs = grain.MapDataset.range(2**31).seed(data_seed)
    return epochs.random_map(lambda _, generator: generator.permutation(np.arange(num_windows, dtype=np.int32)))[epoch]


@dataclasses.dataclass(frozen=True, eq=False)
class EvalWindows:
    """Windows that count each byte of each document once; targets of window w are tokens[w, 1:]."""

    tokens: np.ndarray  # uint16 (windows, seq_len + 1), zero beyond the document's end
    length: np.ndarray  # int32 (windows,): inputs, and targets, that are there
    first: np.ndarray  # int32 (windows,): the targets first <= t < last count; those before are context only
    last: np.ndarray  # int32 (windows,)
    document: np.ndarray  # int32 (windows,): index into Corpus.names
    begin: np.ndarray  # int32 (windows,): place of the window's first token in its document


def eval_windows(corpus: Corpus, split: str, seq_len: int, stride: int | None = None) -> EvalWindows:
    """The windows of seq_len inputs that begin every `stride` tokens (default seq_len) of each document of `split`.

    The first window of a document counts all its targets; a later one the last `stride`, or as many as there are. A
    document of at most seq_len bytes is one window.

    Raises:
      InputError: stride is not in 1 ... seq_len.
    """
    stride = seq_len if stride is None else stride
    if not 1 <= stride <= seq_len:
        raise InputError(f"eval.stride={stride} must be from 1 to data.seq_len={seq_len}.")
    first_document, last_document = corpus.splits[split]
    num_bytes = corpus.num_bytes[first_document:last_document]
    windows = 1 + np.maximum(0, -(-(num_bytes - seq_len) // stride))  # of each document
    document = np.repeat(np.arange(len(windows)), windows)
    place = np.arange(len(document)) - np.repeat(np.cumsum(windows) - windows, windows)  # of the window in its document
    length = np.minimum(seq_len, num_bytes[document] - place * stride)
    first = np.where(place > 0, seq_len - stride, 0)
    begin = corpus.offsets_of(split)[document] + place * stride
    column = np.arange(seq_len + 1)
    index = np.minimum(begin[:, None] + column, len(corpus.tokens) - 1)
    tokens = np.where(column <= length[:, None], corpus.tokens[index], 0).astype(np.uint16)
    document = document + first_document
    columns = length, first, length, document, place * stride
    return EvalWindows(tokens, *(array.astype(np.int32) for array in columns))
