"""Plain softmax attention: the oracle that every fast path is held to, in float64 as well.

Dimension key: B batch, T query position, S key position, H head, K head width.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np


def visible(segments_BT: jax.Array | None, length: int, causal: bool) -> jax.Array:
    """Which key each query may see: bool (B or 1, T, S).

    A key is visible when it lies in the query's segment, is no padding (segment 0) and, if `causal`, is not later.
    """
    see_BTS = jnp.ones((1, length, length), bool)
    if causal:
        see_BTS = jnp.tril(see_BTS)
    if segments_BT is not None:
        same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
        see_BTS = see_BTS & same_BTS & (segments_BT != 0)[:, :, None]
    return see_BTS


def weights(q_BTHK, k_BSHK, *, scale: float, causal: bool, segments_BT=None) -> jax.Array:
    """Attention weights (B, H, T, S): softmax_S(scale q.k) (Vaswani et al. 2017, eq. 1), rows of zeros where nothing
    is visible. Logits and softmax in promote_types(dtype, float32)."""
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    logits_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=wide) * scale
    see_BHTS = visible(segments_BT, q_BTHK.shape[1], causal)[:, None]
    weights_BHTS = jax.nn.softmax(jnp.where(see_BHTS, logits_BHTS, jnp.finfo(wide).min))
    return weights_BHTS if segments_BT is None else jnp.where(see_BHTS, weights_BHTS, 0)


def attend(q_BTHK, k_BSHK, v_BSHK, *, scale: float, causal: bool, segments_BT=None) -> jax.Array:
    """Heads' outputs (B, T, H, K) before the output projection, in the dtype of `v_BSHK`."""
    weights_BHTS = weights(q_BTHK, k_BSHK, scale=scale, causal=causal, segments_BT=segments_BT)
    return jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS.astype(v_BSHK.dtype), v_BSHK)


def weights_in_blocks(
    q_BTHK,
    k_BSHK,
    *,
    scale: float,
    causal: bool,
    segments_BT=None,
    heads: Sequence[int] | None = None,
    budget_bytes: int = 256 << 20,
) -> Iterator[tuple[slice, np.ndarray, jax.Array]]:
    """Attention weights a block of documents and heads at a time, so that (B, H, T, S) never exists at once.

    Args:
      q_BTHK, k_BSHK, scale, causal, segments_BT: as for `weights`.
      heads: the heads whose weights are wanted. None: all.
      budget_bytes: what the weights of one block and the two intermediates of their size may take together.

    Yields:
      (documents, heads, weights): a slice of axis 0 and indices into axis 2 of `q_BTHK`, and their weights (b, h, T,
      S). A block holds all wanted heads of some documents, or, where one document's exceed the budget, some of them.

    Raises:
      ValueError: not even one head of one document fits the budget, or `heads` names none, or one that is not there.
    """
    batch, length, num_heads, _ = q_BTHK.shape
    wanted = np.arange(num_heads) if heads is None else np.asarray(heads, int)
    if not wanted.size or not np.isin(wanted, np.arange(num_heads)).all():
        raise ValueError(f"weights are wanted of heads {wanted.tolist()}; choose among 0 ... {num_heads - 1}.")
    one_head = 3 * length * length * jnp.promote_types(q_BTHK.dtype, jnp.float32).itemsize
    room = budget_bytes // one_head
    if room < 1:
        raise ValueError(
            f"the weights of one head at T={length} take {one_head} bytes with their intermediates, more than "
            f"budget_bytes={budget_bytes}; raise the budget or cut the input."
        )
    documents_step, heads_step = (min(batch, room // wanted.size), wanted.size) if room >= wanted.size else (1, room)
    for document in range(0, batch, documents_step):
        documents = slice(document, min(document + documents_step, batch))
        segments = None if segments_BT is None else segments_BT[documents]
        for first in range(0, wanted.size, heads_step):
            some = wanted[first : first + heads_step]
            q, k = q_BTHK[documents, :, some], k_BSHK[documents, :, some]
            yield documents, some, _weights(q, k, segments, scale=scale, causal=causal)


@functools.partial(jax.jit, static_argnames=("scale", "causal"))
def _weights(q_BTHK, k_BSHK, segments_BT, *, scale, causal):
    return weights(q_BTHK, k_BSHK, scale=scale, causal=causal, segments_BT=segments_BT)
