"""What a program's replicas read: windows of the study's corpus, or documents of each seed's own language.

Dimension key: R row of a program, K step of a dispatch, B window, N token.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from train import grid
from train.config import StudyConfig
from train.data.batches import Batches
from train.data.corpora import Corpus
from train.data.relations import doses, language

STEPS_PER_DISPATCH = 64  # K: at most; the loop dispatches fewer where a step is slow


class CorpusFeed:
    """Packed windows of the train split, which lies on the device as a whole."""

    def __init__(self, corpus: Corpus, config: StudyConfig):
        self.corpus, self.bos, self._batch_size = corpus, corpus.bos, config.train.batch_size
        self._seq_len, self._parts = config.data.seq_len, 2 if config.train.windows == "halves" else 1

    def languages(self, replicas: Sequence[grid.Replica]) -> list[None]:
        """Of each replica the language that it reads: none."""
        return [None] * len(replicas)

    def shape(self, rows: int) -> tuple[int]:
        """Of the tokens that every dispatch is given."""
        return self.corpus.tokens_of("train").shape

    def dispatch(self, replicas: Sequence[grid.Replica], rows: int, first_step: int, num_steps: int, place):
        """tokens_N, on the devices of `place`, and starts_RKB, int32, the first token of each window of `num_steps`
        steps for the replicas in the first rows."""
        starts = np.zeros((rows, STEPS_PER_DISPATCH, self._batch_size), np.int32)
        seeds = [replica.data_seed for replica in replicas]
        windows = self.corpus.num_windows("train", self._seq_len) // self._parts  # that one data seed reads
        batches = {seed: Batches(windows, self._batch_size, self._seq_len, seed) for seed in seeds}
        first = {seed: np.int32(seed % self._parts * windows * self._seq_len) for seed in seeds}
        drawn = {seed: first[seed] + of_seed.starts(first_step, num_steps) for seed, of_seed in batches.items()}
        for row, seed in enumerate(seeds):
            starts[row, :num_steps] = drawn[seed]
        return _on_device(self.corpus, place), starts


class LanguageFeed:
    """Whole documents, each replica's of its own seed's language at a dose; they come with every dispatch."""

    bos = language.BOS

    def __init__(self, config: StudyConfig, dose: int):
        self._config, self._dose = config, dose
        self._batch_size, self._length = config.train.batch_size, config.data.document_tokens

    def languages(self, replicas: Sequence[grid.Replica]) -> list[language.Language]:
        """Of each replica the language that it reads."""
        return [doses.spoken(self._config.data, self._dose, replica.data_seed) for replica in replicas]

    def shape(self, rows: int) -> tuple[int]:
        """Of the tokens that every dispatch is given."""
        return (rows * STEPS_PER_DISPATCH * self._batch_size * self._length + 1,)

    def dispatch(self, replicas: Sequence[grid.Replica], rows: int, first_step: int, num_steps: int, place):
        """As CorpusFeed.dispatch."""
        tokens, a_row = np.zeros(self.shape(rows), np.uint16), STEPS_PER_DISPATCH * self._batch_size * self._length
        for row, replica in enumerate(replicas):
            documents = doses.trained_on(self._config, self._dose, replica.data_seed, first_step, num_steps)
            tokens[row * a_row : row * a_row + documents.size] = documents.ravel()
        starts = np.arange(rows * STEPS_PER_DISPATCH * self._batch_size, dtype=np.int32) * np.int32(self._length)
        return jax.device_put(tokens, place), starts.reshape(rows, STEPS_PER_DISPATCH, self._batch_size)


Feed = CorpusFeed | LanguageFeed


def of(config: StudyConfig, corpus: Corpus | None, dose: int) -> Feed:
    """The feed of a cell: of the corpus, or of the languages at its dose."""
    return LanguageFeed(config, dose) if dose else CorpusFeed(corpus, config)


def fingerprint(config: StudyConfig, corpus: Corpus | None) -> str:
    """Of everything that a study's replicas read."""
    if corpus is not None:
        return corpus.fingerprint
    seeds = sorted({seed for _, seed in (*grid.choosing_seeds(config), *grid.judged_seeds(config))})
    return doses.fingerprint(config.data, config.dose.relations, tuple(seeds))


@functools.lru_cache(maxsize=1)  # all programs of a study share one copy
def _on_device(corpus: Corpus, place: jax.sharding.Sharding) -> jax.Array:
    return jax.device_put(np.asarray(corpus.tokens_of("train")), place)
