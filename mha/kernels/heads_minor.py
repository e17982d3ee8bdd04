"""Exact attention for d_k = 1 on a CPU: heads along the vector lanes, no matmul, no stored probabilities.

With one number a head, a logit is a product, and a matmul's tile would be empty but for one column. Here every
operation is elementwise over (B, rows, H); a loop walks the keys (or, for the gradients of key and value, the queries)
a few at a time and folds them into the rows' accumulators. The backward pass recomputes the probabilities, once for
the queries' gradient and once for those of key and value (Dao et al. 2022, FlashAttention, appendix B).

Two sums a loop are kept as the real and imaginary part of one complex array: XLA:CPU turns two outputs into two
kernels, each with its own exponentials, and one complex output into a single kernel spread over the threads.

Dimension key: B batch, T position, H head.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mha.kernels.batching import fold_vmap, in_pieces, largest_divisor
from mha.kernels.exponential import exp_nonpositive

_ROWS = 64  # rows whose accumulators a loop holds
_STEP = 8  # keys (or queries) that one kernel folds in
_LANES = 2048  # batch entries x heads worked on at once: accumulators and operands of 64 rows stay within 4 MB


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale: float, causal: bool) -> jax.Array:
    """Attention outputs (B, T, H, 1) for d_k = 1; arguments as in `reference.attend`."""
    return _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal)[0]


def _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal):
    forward = _batched(functools.partial(_forward, causal=causal))
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    q_BTH, k_BTH, v_BTH = (x[..., 0].astype(wide) for x in (q_BTHK, k_BSHK, v_BSHK))
    out_BTH, best_BTH, total_BTH = forward(q_BTH * scale, k_BTH, v_BTH, segments_BT)
    saved = (q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH, best_BTH, total_BTH)
    return out_BTH[..., None].astype(v_BSHK.dtype), saved


def _attend_bwd(scale, causal, saved, d_out_BTHK):
    q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH, best_BTH, total_BTH = saved
    backward = _batched(functools.partial(_backward, causal=causal))
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    q_BTH, k_BTH, v_BTH, d_out_BTH = (x[..., 0].astype(wide) for x in (q_BTHK, k_BSHK, v_BSHK, d_out_BTHK))
    d_q_BTH, d_k_BTH, d_v_BTH = backward(
        q_BTH * scale, k_BTH, v_BTH, segments_BT, out_BTH, d_out_BTH, best_BTH, total_BTH
    )
    grads = zip((d_q_BTH * scale, d_k_BTH, d_v_BTH), (q_BTHK, k_BSHK, v_BSHK), strict=True)
    return *(d_BTH[..., None].astype(x.dtype) for d_BTH, x in grads), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _batched(function: Callable) -> Callable:
    """`function` of (B, T, H) arrays, padded to whole blocks of rows and applied to pieces of the batch."""

    @fold_vmap
    def run(arrays):
        batch, length, heads = arrays[0].shape
        rows = min(_ROWS, -(-length // _STEP) * _STEP)
        spare = -length % rows
        if spare:
            if arrays[3] is None:
                arrays = [*arrays[:3], jnp.ones((batch, length), jnp.int32), *arrays[4:]]
            arrays = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, spare)) + ((0, 0),) * (x.ndim - 2)), arrays)
        piece = largest_divisor(batch, _LANES // heads)
        out = in_pieces(lambda *part: function(*part, rows=rows), piece, *arrays)
        return [x_BTH[:, :length] for x_BTH in out]

    return lambda *arrays: run(list(arrays))


def _forward(q_BTH, k_BTH, v_BTH, segments_BT, *, causal, rows):
    """Every row's output, best key (of the largest visible logit) and total weight, (B, T, H) each; zeros where nothing
    is visible.

    A logit is taken relative to the largest as q (k - best): unlike q k - q best it keeps its digits at any size, and
    it is exactly zero for the best key.
    """
    length = q_BTH.shape[1]
    segments_BT1 = None if segments_BT is None else segments_BT[..., None]
    largest = jnp.finfo(q_BTH.dtype).max

    def block(number, filled):
        start = number * rows
        q_BRH, segments_BR1 = _cut((q_BTH, segments_BT1), start, rows)
        index_1R1 = start + jnp.arange(rows)[None, :, None]
        walk = functools.partial(_fold, start=0, stop=start + rows if causal else length)

        def extend(extremes, index, k_B1H, segments_B11):
            see = _visible(index_1R1, index, segments_BR1, segments_B11, causal)
            high_BRH = jnp.maximum(extremes.real, _where(see, k_B1H, -largest))
            return jax.lax.complex(high_BRH, jnp.minimum(extremes.imag, _where(see, k_B1H, largest)))

        extremes = walk(extend, _constant(q_BRH, -largest, largest), (k_BTH, segments_BT1))
        best_BRH = jnp.where(q_BRH >= 0, extremes.real, extremes.imag)
        best_BRH = jnp.where(extremes.real >= extremes.imag, best_BRH, 0)

        def accumulate(sums, index, k_B1H, v_B1H, segments_B11):
            see = _visible(index_1R1, index, segments_BR1, segments_B11, causal)
            weight_BRH = _where(see, exp_nonpositive(q_BRH * (k_B1H - best_BRH)), 0)
            return jax.lax.complex(sums.real + weight_BRH * v_B1H, sums.imag + weight_BRH)

        sums = walk(accumulate, _constant(q_BRH, 0, 0), (k_BTH, v_BTH, segments_BT1))
        total_BRH = sums.imag
        out_BRH = sums.real / jnp.where(total_BRH == 0, 1, total_BRH)
        return _put(filled, (out_BRH, best_BRH, total_BRH), start)

    empty = jnp.zeros_like(q_BTH)
    return jax.lax.fori_loop(0, length // rows, block, (empty, empty, empty))


def _backward(q_BTH, k_BTH, v_BTH, segments_BT, out_BTH, d_out_BTH, best_BTH, total_BTH, *, causal, rows):
    """Gradients of query, key and value, (B, T, H) each.

    With p_ts = exp(q_t (k_s - best_t)) / total_t:
    d_q_t = sum_s p_ts d_out_t (v_s - out_t) k_s, d_k_s = sum_t p_ts d_out_t (v_s - out_t) q_t and
    d_v_s = sum_t p_ts d_out_t. The division by the total is folded into d_out beforehand.
    """
    length = q_BTH.shape[1]
    segments_BT1 = None if segments_BT is None else segments_BT[..., None]
    d_out_BTH = jnp.where(total_BTH == 0, 0, d_out_BTH / jnp.where(total_BTH == 0, 1, total_BTH))
    rows_of = (q_BTH, best_BTH, d_out_BTH, out_BTH)

    def block_of_queries(number, d_q_BTH):
        start = number * rows
        (q_BRH, best_BRH, d_out_BRH, out_BRH), segments_BR1 = _cut((rows_of, segments_BT1), start, rows)
        index_1R1 = start + jnp.arange(rows)[None, :, None]

        def accumulate(d_q_BRH, index, k_B1H, v_B1H, segments_B11):
            see = _visible(index_1R1, index, segments_BR1, segments_B11, causal)
            weight_BRH = _where(see, exp_nonpositive(q_BRH * (k_B1H - best_BRH)), 0)
            return d_q_BRH + weight_BRH * (d_out_BRH * (v_B1H - out_BRH)) * k_B1H

        stop = start + rows if causal else length
        d_q_BRH = _fold(accumulate, jnp.zeros_like(q_BRH), (k_BTH, v_BTH, segments_BT1), start=0, stop=stop)
        return _put(d_q_BTH, d_q_BRH, start)

    def block_of_keys(number, filled):
        start = number * rows
        k_BRH, v_BRH, segments_BR1 = _cut((k_BTH, v_BTH, segments_BT1), start, rows)
        index_1R1 = start + jnp.arange(rows)[None, :, None]

        def accumulate(sums, index, q_B1H, best_B1H, d_out_B1H, out_B1H, segments_B11):
            see = _visible(index, index_1R1, segments_B11, segments_BR1, causal)
            weight_BRH = _where(see, exp_nonpositive(q_B1H * (k_BRH - best_B1H)), 0)
            d_k_BRH = sums.real + weight_BRH * (d_out_B1H * (v_BRH - out_B1H)) * q_B1H
            return jax.lax.complex(d_k_BRH, sums.imag + weight_BRH * d_out_B1H)

        start_at = start if causal else 0
        sums = _fold(accumulate, _constant(k_BRH, 0, 0), (*rows_of, segments_BT1), start=start_at, stop=length)
        return _put(filled, (sums.real, sums.imag), start)

    empty = jnp.zeros_like(q_BTH)
    d_q_BTH = jax.lax.fori_loop(0, length // rows, block_of_queries, empty)
    return d_q_BTH, *jax.lax.fori_loop(0, length // rows, block_of_keys, (empty, empty))


def _fold(update: Callable, sums: jax.Array, arrays: tuple, *, start, stop) -> jax.Array:
    """`sums` after `update(sums, index, *entries)` for each index from `start` to `stop` (multiples of _STEP), where
    `entries` are the arrays' entries (B, 1, ...) at that index.

    The next entries are cut at the end of a step and carried: a cut at a traced index inside the update's kernel would
    be loaded anew for every element, and LLVM would not vectorise it.
    """

    def step(number, carry):
        sums, entries = carry
        for i in range(_STEP):
            sums = update(sums, number * _STEP + i, *(None if x is None else x[:, i : i + 1] for x in entries))
        return sums, _cut(arrays, (number + 1) * _STEP, _STEP)

    return jax.lax.fori_loop(start // _STEP, stop // _STEP, step, (sums, _cut(arrays, start, _STEP)))[0]


def _visible(query, key, segments_query, segments_key, causal):
    """Whether the query sees the key, broadcast over their indices and segments; None: all see all."""
    see = query >= key if causal else None
    if segments_query is not None:
        same = (segments_query == segments_key) & (segments_query != 0)
        see = same if see is None else see & same
    return see


def _where(see, x, otherwise):
    return x if see is None else jnp.where(see, x, otherwise)


def _constant(like: jax.Array, real, imag) -> jax.Array:
    return jax.lax.complex(jnp.full_like(like, real), jnp.full_like(like, imag))


def _cut(arrays, start, size: int):
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1), arrays)


def _put(filled, blocks, start):
    return jax.tree.map(lambda x, block: jax.lax.dynamic_update_slice_in_dim(x, block, start, axis=1), filled, blocks)
