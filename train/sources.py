"""From data.source to tokens: text as bytes, or the words of a relations language."""

import dataclasses

import numpy as np

from train.config import DataConfig, InputError
from train.gold import Gold

BOS = 256  # of text as bytes
VOCAB_SIZE = 257
MOST_TOKENS = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """What a corpus is written from: its fields are those of train.data.Corpus."""

    tokens: np.ndarray  # uint16 (tokens,)
    offsets: np.ndarray  # int64 (documents + 1,)
    names: list[str]
    splits: dict[str, tuple[int, int]]
    unit: str
    vocab_size: int
    bos: int
    gold: Gold | None = None


def vocab_size(config: DataConfig) -> int:
    """Words of the model, known before the corpus is.

    Raises:
      InputError: data.vocab_size is too small for the source.
    """
    if config.source == "relations":
        from train.relations import parse

        return config.vocab_size or len(parse.language(config).vocabulary)
    if config.vocab_size and config.vocab_size < VOCAB_SIZE:
        raise InputError(f"data.vocab_size={config.vocab_size} is too small: bytes and BOS need {VOCAB_SIZE}.")
    return config.vocab_size or VOCAB_SIZE


def read(config: DataConfig) -> Contents:
    """Everything that config.source has.

    Raises:
      InputError: the source is unknown, unreadable, too short, or has more tokens than an int32 can count.
    """
    if config.tokenizer != "bytes":
        raise InputError(f"data.tokenizer={config.tokenizer!r} is not known; the only tokenizer is bytes.")
    return _language(config) if config.source == "relations" else _text(config)


def _text(config: DataConfig) -> Contents:
    from train import documents  # slow, and only the first run needs the sources

    splits, unit = documents.read(config)
    chosen = [document for split in documents.SPLITS for document in splits[split]]
    offsets = np.cumsum([0] + [len(document.text) + 1 for document in chosen], dtype=np.int64)
    if offsets[-1] > MOST_TOKENS:
        raise InputError(
            f"data.source={config.source} makes {offsets[-1]:,} tokens and {MOST_TOKENS:,} is the most; set "
            "data.max_bytes=2_000_000_000 or less."
        )
    tokens = np.empty(offsets[-1], np.uint16)
    for document, first, last in zip(chosen, offsets[:-1], offsets[1:], strict=True):
        tokens[first] = BOS
        tokens[first + 1 : last] = np.frombuffer(document.text, np.uint8)
    bounds = _bounds({split: len(splits[split]) for split in documents.SPLITS})
    return Contents(tokens, offsets, [document.name for document in chosen], bounds, unit, vocab_size(config), BOS)


def _language(config: DataConfig) -> Contents:
    from train.relations import corpus, language

    tokens, counts, labels = corpus.read(config)
    offsets = np.arange(len(tokens) + 1, dtype=np.int64) * tokens.shape[1]
    names = [f"{split}/{index}" for split, count in counts.items() for index in range(count)]
    size = vocab_size(config)
    return Contents(tokens.ravel(), offsets, names, _bounds(counts), "document", size, language.BOS, labels)


def _bounds(counts: dict[str, int]) -> dict[str, tuple[int, int]]:
    """(first, last) document of each split, in the order train, tune, test."""
    ends = np.cumsum([0, *counts.values()]).tolist()
    return dict(zip(counts, zip(ends[:-1], ends[1:], strict=True), strict=True))
