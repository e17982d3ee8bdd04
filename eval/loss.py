"""Per-document loss of every replica of a pack.

Dimension key: R replica, N batch of a dispatch, B window, T position.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mha.transformer import ModelConfig
from train.config import EvalConfig
from train.data import Corpus, eval_windows
from train.packs import Pack
from train.step import over_replicas, token_losses

BATCHES_PER_DISPATCH = 8


@functools.partial(jax.jit, static_argnames=("model", "replica_map"))
def _window_losses(model: ModelConfig, replica_map: str, params, tokens_NBT1, length_NB, first_NB, last_NB):
    """Summed loss (R, N, B) in nats of the targets first <= t < last of each window."""
    index_T = jnp.arange(model.seq_len)

    def one_replica(params):
        def one_batch(batch):
            tokens_BT1, length_B, first_B, last_B = batch
            segments_BT = (index_T[None] < length_B[:, None]).astype(jnp.int32)
            losses_BT = token_losses(model, params, tokens_BT1.astype(jnp.int32), segments_BT)
            counted_BT = (index_T[None] >= first_B[:, None]) & (index_T[None] < last_B[:, None])
            return jnp.sum(jnp.where(counted_BT, losses_BT, 0), axis=1)

        return jax.lax.map(one_batch, (tokens_NBT1, length_NB, first_NB, last_NB))

    return over_replicas(one_replica, replica_map)(params)


def document_losses(pack: Pack, params: dict, corpus: Corpus, split: str, config: EvalConfig) -> np.ndarray:
    """Summed loss in nats, float64 (R, documents of the split): each byte of each document counted once.

    Windows are data.eval_windows with `config.stride` (0: seq_len); the last batch is padded with windows that count
    nothing.
    """
    windows = eval_windows(corpus, split, pack.model.seq_len, config.stride or pack.model.seq_len)
    a_dispatch = BATCHES_PER_DISPATCH * config.batch_size
    count = len(windows.document)
    padding = -count % a_dispatch
    shape = (-1, BATCHES_PER_DISPATCH, config.batch_size)
    arrays = [
        np.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1)).reshape(*shape, *array.shape[1:])
        for array in (windows.tokens, windows.length, windows.first, windows.last)
    ]
    sums = [
        np.asarray(_window_losses(pack.model, pack.replica_map, params, *chunk)).reshape(len(pack.replicas), -1)
        for chunk in zip(*arrays, strict=True)
    ]
    flat = np.concatenate(sums, axis=1)[:, :count].astype(np.float64)
    first, last = corpus.splits[split]
    return np.stack([np.bincount(windows.document - first, row, last - first) for row in flat])
