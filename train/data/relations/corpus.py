"""The documents of a language as a study's corpus: tokens, splits, and the gold labels of tune and test."""

import itertools

import numpy as np

from train.config import DataConfig, refuse
from train.data.documents import SPLITS, TRAIN_WINDOWS
from train.data.gold import Gold
from train.data.relations import language, parse

FEWEST = 8  # documents of tune, and of test


def read(config: DataConfig) -> tuple[np.ndarray, dict[str, int], Gold]:
    """Tokens uint16 (documents, T) in the order train, tune, test; documents of each split; the labels.

    data.max_bytes counts tokens here. The documents of test come first in the language's own numbering and those of
    train last, so that more training text leaves the others as they are.

    Raises:
      InputError: a language that cannot be (train.data.relations.parse), or too few documents of it.
    """
    spoken = parse.language(config)
    counts = _counts(config, spoken.length)
    seed, first, parts = config.language_seed, 0, {}
    begins = dict(zip(SPLITS, itertools.accumulate(counts.values(), initial=0), strict=False))  # in the corpus
    for split in reversed(SPLITS):
        parts[split] = language.documents(spoken, seed, first, first + counts[split], begins[split])
        first += counts[split]
    labels, bits = language.joined([parts["tune"], parts["test"]]), spoken.vocabulary.answer_bits
    gold = Gold(spoken.relations, counts["train"], labels.links, labels.questions, bits, labels.log_p.ravel())
    return np.concatenate([parts[split].tokens for split in SPLITS]), counts, gold


def _counts(config: DataConfig, length: int) -> dict[str, int]:
    """Documents of each split."""
    total = config.max_bytes // length
    tune, test = (int(total * share) for share in (config.tune_fraction, config.test_fraction))
    counts = {"train": total - tune - test, "tune": tune, "test": test}
    fewest = -(-TRAIN_WINDOWS * (config.seq_len + 1) // length)
    shares = min(config.tune_fraction, config.test_fraction)
    enough = max(-(-FEWEST // shares) + 1, fewest / (1 - config.tune_fraction - config.test_fraction) + 2)
    too_few = (
        f"data.max_bytes={config.max_bytes:,} (for data.source=relations: tokens of all splits together) makes "
        f"{counts['train']} documents of {length} tokens to train on, {tune} for tune and {test} for test; a "
        f"language has no end, so say how much, at least --config.data.max_bytes={int(enough * length)}."
    )
    refuse(((not config.max_bytes or min(tune, test) < FEWEST or counts["train"] < fewest) and too_few,))
    return counts
