"""The tokens of a study: written once into the workdir, opened by every run, cut into training and evaluation windows.

A document is BOS and then its tokens: the bytes of its UTF-8 text (BOS is token 256), BPE pieces, or the words of a
language. The documents of the train split come first, then those of tune, then those of test, so that each
split is one run of tokens. What models of one and two tokens score on it is what a loss is read beside.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from train.config import DataConfig, InputError, refuse
from train.data import gold
from train.data.gold import EvalWindows, Gold
from train.files import replacing, write_json

BOS = 256  # of text as bytes
VOCAB_SIZE = 257  # the bytes and BOS
# Add-alpha smoothing of the bigram model; on megabytes of English its loss moves by .3 % from .01 to 1.
BIGRAM_ALPHA = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """All documents of a study. `first` and `last` are half-open everywhere.

    Attributes:
      labelled: documents with gold links that nobody trains on, as a corpus of the splits tune and test alone, with the
        same tokenizer and words; where data.labelled names them.
    """

    tokens: np.ndarray  # uint16 (tokens,), memory-mapped once written
    offsets: np.ndarray  # int64 (documents + 1,): document d is tokens[offsets[d]:offsets[d + 1]]
    names: tuple[str, ...]  # of documents
    splits: dict[str, tuple[int, int]]  # train (but in labelled text), tune, test -> (first, last) document
    source: str
    unit: str  # 'document': a record of the source; 'block': part of one, because the source has few records
    fingerprint: str = ""  # sha256 over tokens, offsets, names, splits and labels, once written
    vocab_size: int = VOCAB_SIZE
    bos: int = BOS
    gold: Gold | None = None
    bytes_of: np.ndarray | None = None  # int64 (documents,), where a token is not a byte
    tokenizer: str | None = None  # JSON of the library tokenizers
    notes: tuple[str, ...] = ()  # what reading the source found, in sentences
    labelled: "Corpus | None" = None

    def file_of(self, name: str) -> str:
        """The source file of a document by its name: a record is a file of its own, a block a part of one."""
        return name if self.unit == "document" else name.rpartition("@")[0]

    @property
    def num_tokens(self) -> np.ndarray:
        """Targets of each document, which are its tokens but BOS: int64 (documents,)."""
        return np.diff(self.offsets) - 1

    @property
    def num_bytes(self) -> np.ndarray:
        """Bytes of each document's text, int64 (documents,); a word of a language counts as one."""
        return self.num_tokens if self.bytes_of is None else self.bytes_of

    def bytes_per_token(self, split: str) -> float:
        first, last = self.splits[split]
        return float(self.num_bytes[first:last].sum() / self.num_tokens[first:last].sum())

    @property
    def has_floor(self) -> bool:
        """Whether a language wrote the text, so that the least possible loss of tune and test is known."""
        return self.gold is not None and len(self.gold.log_p) > 0

    @property
    def token(self) -> str:
        """What a token is, in words."""
        return "BPE piece" if self.tokenizer else "byte" if self.bos == BOS else "word of the language"

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


def write_corpus(config: DataConfig, folder: str | os.PathLike) -> Corpus:
    """Reads config.source and writes tokens.npy, offsets.npy, gold.npz where there are labels, tokenizer.json where one
    was trained, labelled/ where config.labelled names text, and corpus.json last.

    Raises:
      InputError: a source is unknown, unreadable, too short, or has more tokens than an int32 can count.
    """
    from train.data import sources  # slow, and only the first run needs them

    _write(sources.read(config), Path(folder))
    return open_corpus(folder)


def _write(corpus: Corpus, folder: Path) -> str:
    """Writes all of `corpus`; returns its fingerprint."""
    recorded = {"names": corpus.names, "splits": corpus.splits}
    if corpus.labelled:
        recorded["labelled"] = _write(corpus.labelled, folder / "labelled")
    # Not through a memory map: on a full disk that ends the process without a word.
    for name, array in (("tokens.npy", corpus.tokens), ("offsets.npy", corpus.offsets)):
        with replacing(folder / name) as file:
            np.save(file, array)
        recorded[name] = _sha256(array)
    if (corpus.vocab_size, corpus.bos) != (VOCAB_SIZE, BOS):
        recorded |= {"vocab_size": corpus.vocab_size, "bos": corpus.bos}
    optional = {"bytes": None if corpus.bytes_of is None else corpus.bytes_of.tolist(), "notes": corpus.notes}
    recorded |= {name: value for name, value in optional.items() if value}
    labels, tokenizer = corpus.gold and corpus.gold.as_bytes(), corpus.tokenizer and corpus.tokenizer.encode()
    for name, content in (("gold.npz", labels), ("tokenizer.json", tokenizer)):
        if content:
            with replacing(folder / name) as file:
                file.write(content)
            recorded[name] = _sha256(content)
    fingerprint = _fingerprint(recorded)
    about = {"source": corpus.source, "unit": corpus.unit, "fingerprint": fingerprint, **recorded}
    write_json(folder / "corpus.json", about)
    return fingerprint


def open_corpus(folder: str | os.PathLike) -> Corpus:
    """The corpus in `folder`, every byte of it checked.

    Raises:
      InputError: a file is missing or is not the one that was written.
    """
    folder = Path(folder)
    try:
        recorded = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        source, unit, fingerprint = (recorded.pop(key) for key in ("source", "unit", "fingerprint"))
        if fingerprint != _fingerprint(recorded):
            raise ValueError(fingerprint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / "corpus.json") from error

    def checked(name: str, read: Callable):
        """What `read` makes of the file; None where none was written."""
        if name not in recorded:
            return None
        try:
            content = read(folder / name)
            if _sha256(content) != recorded[name]:
                raise ValueError(recorded[name])
            return content
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(folder / name) from error

    labelled = open_corpus(folder / "labelled") if "labelled" in recorded else None
    if labelled and labelled.fingerprint != recorded["labelled"]:
        raise _damaged(folder / "labelled" / "corpus.json")
    labels, tokenizer = (checked(name, Path.read_bytes) for name in ("gold.npz", "tokenizer.json"))
    return Corpus(
        checked("tokens.npy", partial(np.load, mmap_mode="r")),
        checked("offsets.npy", np.load),
        tuple(recorded["names"]),
        {split: tuple(bounds) for split, bounds in recorded["splits"].items()},
        source,
        unit,
        fingerprint,
        vocab_size=recorded.get("vocab_size", VOCAB_SIZE),
        bos=recorded.get("bos", BOS),
        gold=gold.from_bytes(labels) if labels else None,
        bytes_of=np.array(recorded["bytes"], np.int64) if "bytes" in recorded else None,
        tokenizer=tokenizer.decode() if tokenizer else None,
        notes=tuple(recorded.get("notes", ())),
        labelled=labelled,
    )


def _damaged(path: Path) -> InputError:
    why = "is not the file that was written" if path.exists() else "is missing"
    return InputError(
        f"{path} {why}; the cells of this study were trained on it. Restore it from a copy, or start again with a new "
        "--workdir."
    )


def _sha256(content: bytes | np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(content) if isinstance(content, np.ndarray) else content).hexdigest()


def _fingerprint(recorded: dict) -> str:
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()


def eval_windows(corpus: Corpus, split: str, seq_len: int, stride: int | None = None) -> EvalWindows:
    """The windows of seq_len inputs that begin every `stride` tokens (default seq_len) of each document of `split`.

    The first window of a document counts all its targets; a later one the last `stride`, or as many as there are. A
    document of at most seq_len tokens is one window.

    Raises:
      InputError: stride is not in 1 ... seq_len.
    """
    stride = seq_len if stride is None else stride
    refuse(not 1 <= stride <= seq_len and f"eval.stride={stride} must be from 1 to data.seq_len={seq_len}.")
    first_document, last_document = corpus.splits[split]
    num_tokens = corpus.num_tokens[first_document:last_document]
    windows = 1 + np.maximum(0, -(-(num_tokens - seq_len) // stride))  # of each document
    document = np.repeat(np.arange(len(windows)), windows)
    place = np.arange(len(document)) - np.repeat(np.cumsum(windows) - windows, windows)  # of the window in its document
    length = np.minimum(seq_len, num_tokens[document] - place * stride)
    first = np.where(place > 0, seq_len - stride, 0)
    begin, column = corpus.offsets_of(split)[document] + place * stride, np.arange(seq_len + 1)
    index = np.minimum(begin[:, None] + column, len(corpus.tokens) - 1)
    tokens = np.where(column <= length[:, None], corpus.tokens[index], 0).astype(np.uint16)
    columns = length, first, length, document + first_document, place * stride
    return EvalWindows(tokens, *(array.astype(np.int32) for array in columns))


def unigram_entropy(corpus: Corpus) -> float:
    """Entropy in nats/token of the tokens of the train split: what a model scores that knows their frequencies only."""
    counts = np.delete(np.bincount(corpus.tokens_of("train")), corpus.bos)
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))


def bigram_loss(corpus: Corpus, split: str) -> float:
    """Loss in nats/token, on every token of every document of `split`, of a bigram model fitted to the train split."""
    size = corpus.vocab_size

    def pairs(split: str) -> tuple[np.ndarray, np.ndarray]:
        """Each pair that occurs, as first * size + second, and how often."""
        tokens = corpus.tokens_of(split).astype(np.int64)
        inside = tokens[1:] != corpus.bos  # a BOS is never a target
        return np.unique(tokens[:-1][inside] * size + tokens[1:][inside], return_counts=True)

    known, counts = pairs("train")
    observed, weights = pairs(split)
    place = np.minimum(np.searchsorted(known, observed), len(known) - 1)
    count = np.where(known[place] == observed, counts[place], 0)
    after = np.bincount(known // size, counts, size)[observed // size]
    smoothed = (count + BIGRAM_ALPHA) / (after + BIGRAM_ALPHA * (size - 1))
    return float(-np.sum(weights * np.log(smoothed)) / weights.sum())
