"""The texts of a study of doses: each seed speaks a language of its own, at each dose, and no document comes twice.

The first documents of a seed's language are looked at, those of `tune` before those of `test`; training reads on from
there.
"""

import functools
import hashlib
from collections.abc import Iterable

import numpy as np

from train.config import DataConfig, StudyConfig, refuse
from train.data.relations import language
from train.data.relations.parse import spoken

SPLITS = ("tune", "test")


def check(config: StudyConfig) -> None:
    """Raises InputError for a field of data that a study of doses would not read."""
    data, listed = config.data, ",".join(map(str, config.dose.relations))
    refuse(
        data.language_seed
        and f"data.language_seed={data.language_seed} is not read where dose.relations={listed}: every run speaks the "
        f"language of its own seed. Leave it at 0 and choose --config.grid.init_seeds.",
        data.relations.strip().isdigit()
        and int(data.relations) != len(data.offsets)
        and f"data.relations={data.relations!r} is not read where dose.relations={listed} says how many relations are "
        f"on; leave it at {len(data.offsets)}, the bits of an answer, and set --config.dose.relations="
        f"{data.relations.strip()} for that dose.",
    )


@functools.lru_cache(maxsize=64)  # every look reads the same ones
def looked_at(config: StudyConfig, dose: int, split: str, seed: int) -> language.Documents:
    """The documents that a seed's looks of `split` are taken on; training never reads them."""
    first = SPLITS.index(split) * config.dose.documents
    return language.documents(spoken(config.data, dose, seed), seed, first, first + config.dose.documents)


def trained_on(config: StudyConfig, dose: int, seed: int, first_step: int, num_steps: int) -> np.ndarray:
    """Tokens uint16 (num_steps * batch_size, T) of the documents of some training steps."""
    first = len(SPLITS) * config.dose.documents + first_step * config.train.batch_size
    last, own = first + num_steps * config.train.batch_size, spoken(config.data, dose, seed)
    blocks = range(first // language.BLOCK, -(-last // language.BLOCK))
    rows = [slice(max(first - block * language.BLOCK, 0), last - block * language.BLOCK) for block in blocks]
    return np.concatenate([_block(own, seed, block)[part] for block, part in zip(blocks, rows, strict=True)])


@functools.lru_cache(maxsize=32)  # the next steps read on in the same block
def _block(of_seed: language.Language, seed: int, index: int) -> np.ndarray:
    return language.block(of_seed, seed, index).tokens


def answer_bits(config: DataConfig, dose: int, seed: int, vocab_size: int) -> np.ndarray:
    """int8 (vocab_size, B): the bits of each answer, -1 for words that are none and for words beyond the language's."""
    own = spoken(config, dose, seed).vocabulary.answer_bits
    return np.pad(own, ((0, vocab_size - len(own)), (0, 0)), constant_values=-1)


@functools.cache
def fingerprint(config: DataConfig, doses: Iterable[int], seeds: Iterable[int]) -> str:
    """sha256 over the fingerprints of the languages that the seeds speak at the doses."""
    each = [language.fingerprint(spoken(config, dose, seed), seed) for dose in doses for seed in seeds]
    return hashlib.sha256("".join(each).encode()).hexdigest()
