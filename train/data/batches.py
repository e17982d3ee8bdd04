"""Which training windows a step sees."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Batches:
    """The order of the training windows: a pure function of (data seed, step), reshuffled every epoch.

    Every cell and replica with the same data seed sees the same batches.
    """

    num_windows: int
    batch_size: int  # windows
    seq_len: int  # window w begins at token w * seq_len and has seq_len + 1 tokens
    data_seed: int  # 0 ... 2**32 - 1

    def starts(self, first_step: int, num_steps: int) -> np.ndarray:
        """First tokens of the windows of some steps: int32 (num_steps, batch_size)."""
        steps = np.arange(first_step, first_step + num_steps)[:, None]
        epochs, places = np.divmod(steps * self.batch_size + np.arange(self.batch_size), self.num_windows)
        windows = np.empty(epochs.shape, np.int32)
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
