"""Per-document loss of every replica of a pack.

Dimension key: R replica, N batch of a dispatch, B window, T position.
"""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mha.transformer import ModelConfig
from train.config import EvalConfig
from train.data.corpora import Corpus, eval_windows
from train.losses import masked
from train.losses.token_loss import token_losses
from train.replica_axis import over_replicas

BATCHES_PER_DISPATCH = 8


def in_dispatches(columns: Sequence[np.ndarray], batch_size: int) -> Iterable[tuple[np.ndarray, ...]]:
    """Columns of windows, each cut into dispatches (N, B, ...), the last filled with zeros: windows that count
    nothing."""
    spare, shape = -len(columns[0]) % (BATCHES_PER_DISPATCH * batch_size), (-1, BATCHES_PER_DISPATCH, batch_size)
    padded = [np.pad(column, [(0, spare)] + [(0, 0)] * (column.ndim - 1)) for column in columns]
    return zip(*(column.reshape(*shape, *column.shape[1:]) for column in padded), strict=True)


@functools.partial(jax.jit, static_argnames=("model", "replica_map"))
def _window_losses(model: ModelConfig, replica_map: str, params, *columns_NB):
    """Summed loss (R, N, B) in nats of the targets first <= t < last of each window."""
    of_batch = _causal_losses if model.causal else _masked_losses

    def one_replica(params):
        return jax.lax.map(lambda batch: of_batch(model, params, *batch), columns_NB)

    return over_replicas(one_replica, replica_map)(params)


def _causal_losses(model: ModelConfig, params, tokens_BT1, length_B, first_B, last_B):
    """Of one batch (B,)."""
    index_1T = jnp.arange(model.seq_len)[None]
    segments_BT = (index_1T < length_B[:, None]).astype(jnp.int32)
    losses_BT = token_losses(model, params, tokens_BT1.astype(jnp.int32), segments_BT)
    counted_BT = (index_1T >= first_B[:, None]) & (index_1T < last_B[:, None])
    return jnp.sum(jnp.where(counted_BT, losses_BT, 0), axis=1)


def _masked_losses(model: ModelConfig, params, tokens_BT, length_B, first_B, last_B, number_B):
    """As `_causal_losses`, each target hidden in one of masked.ROUNDS passes; the windows are of model.seq_len tokens,
    target t is token t + 1."""
    index_1T, tokens_BT = jnp.arange(model.seq_len)[None], tokens_BT.astype(jnp.int32)
    segments_BT = (index_1T <= length_B[:, None]).astype(jnp.int32)
    round_BT = jnp.pad(masked.round_of(number_B, model.seq_len - 1), ((0, 0), (1, 0)), constant_values=-1)
    counted_BT = (index_1T > first_B[:, None]) & (index_1T <= last_B[:, None])

    def one_round(number):
        hidden_BT = round_BT == number
        losses_BT = masked.losses(model, params, tokens_BT, segments_BT, hidden_BT)
        return jnp.sum(jnp.where(counted_BT & hidden_BT, losses_BT, 0), axis=1)

    return jnp.sum(jax.lax.map(one_round, jnp.arange(masked.ROUNDS)), axis=0)


def document_losses(
    model: ModelConfig, replica_map: str, params: dict, corpus: Corpus, split: str, config: EvalConfig
) -> np.ndarray:
    """Summed loss in nats, float64 (R, documents of the split): each byte of each document counted once.

    Windows are corpora.eval_windows with `config.stride` (0: seq_len). A model that is not causal tells each token
    while it and others of the window (masked.ROUNDS) are hidden; its windows hold one target less, since BOS is one of
    their tokens.
    """
    seq_len = model.seq_len if model.causal else model.seq_len - 1
    windows = eval_windows(corpus, split, seq_len, min(config.stride or seq_len, seq_len))
    count, replicas = len(windows.document), len(jax.tree.leaves(params)[0])
    columns = [windows.tokens, windows.length, windows.first, windows.last]
    columns += [] if model.causal else [np.arange(count, dtype=np.int32)]
    sums = [
        np.asarray(_window_losses(model, replica_map, params, *chunk)).reshape(replicas, -1)
        for chunk in in_dispatches(columns, config.batch_size)
    ]
    flat = np.concatenate(sums, axis=1)[:, :count].astype(np.float64)
    first, last = corpus.splits[split]
    return np.stack([np.bincount(windows.document - first, row, last - first) for row in flat])
