"""Exact attention for d_k = 1 on a CPU: heads along the vector lanes, no matmul, no stored probabilities.

With one number a head, a logit is a product, and a matmul's tile would be empty but for one column. Here every
operation is elementwise over (B, rows, H); a loop walks the keys (or, for the gradients of key and value, the queries)
a few at a time and folds them into the rows' accumulators. The backward pass recomputes the probabilities, once for
the queries' gradient and once for those of key and value (Dao et al. 2022, FlashAttention, appendix B).

Two sums a loop are kept as the real and imaginary part of one complex array (see `walk.fold`).

Dimension key: B batch, T position, H head.
"""

import functools

import jax
import jax.numpy as jnp

from mha.kernels import walk
from mha.kernels.exponential import exp_nonpositive


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale: float, causal: bool) -> jax.Array:
    """Attention outputs (B, T, H, 1) for d_k = 1; arguments as in `reference.attend`."""
    return _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal)[0]


def _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal):
    forward = walk.batched(functools.partial(_forward, causal=causal))
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    q_BTH, k_BTH, v_BTH = (x[..., 0].astype(wide) for x in (q_BTHK, k_BSHK, v_BSHK))
    (out_BTH,) = forward(q_BTH * scale, k_BTH, v_BTH, segments_BT)
    return out_BTH[..., None].astype(v_BSHK.dtype), (q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH)


def _attend_bwd(scale, causal, saved, d_out_BTHK):
    q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH = saved
    backward = walk.batched(functools.partial(_backward, causal=causal))
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    q_BTH, k_BTH, v_BTH, d_out_BTH = (x[..., 0].astype(wide) for x in (q_BTHK, k_BSHK, v_BSHK, d_out_BTHK))
    d_q_BTH, d_k_BTH, d_v_BTH = backward(q_BTH * scale, k_BTH, v_BTH, segments_BT, out_BTH, d_out_BTH)
    grads = zip((d_q_BTH * scale, d_k_BTH, d_v_BTH), (q_BTHK, k_BSHK, v_BSHK), strict=True)
    return *(d_BTH[..., None].astype(x.dtype) for d_BTH, x in grads), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _best(rows: walk.Rows, q_BRH, k_BTH, segments_BTH) -> jax.Array:
    """The visible key of each row's largest logit: the largest or the smallest, as the query's sign has it.

    A logit is taken relative to the largest as q (k - best): unlike q k - q best it keeps its digits at any size, and
    it is exactly zero for the best key. Zero where nothing is visible.
    """
    largest = jnp.finfo(q_BRH.dtype).max

    def extend(extremes, index, k_B1H, segments_B1H):
        see = rows.see(index, segments_B1H)
        high_BRH = jnp.maximum(extremes.real, walk.where(see, k_B1H, -largest))
        return jax.lax.complex(high_BRH, jnp.minimum(extremes.imag, walk.where(see, k_B1H, largest)))

    none_seen = jax.lax.complex(jnp.full_like(q_BRH, -largest), jnp.full_like(q_BRH, largest))
    extremes = walk.fold(extend, none_seen, (k_BTH, segments_BTH), **rows.seen(k_BTH.shape[1]))
    best_BRH = jnp.where(q_BRH >= 0, extremes.real, extremes.imag)
    return jnp.where(extremes.real >= extremes.imag, best_BRH, 0)


def _forward(q_BTH, k_BTH, v_BTH, segments_BTH, *, causal, rows):
    """Every row's output, alone in a list; zero where nothing is visible."""
    length = q_BTH.shape[1]

    def block(block_rows, q_BRH):
        best_BRH = _best(block_rows, q_BRH, k_BTH, segments_BTH)

        def accumulate(sums, index, k_B1H, v_B1H, segments_B1H):
            weight_BRH = exp_nonpositive(q_BRH * (k_B1H - best_BRH))
            weight_BRH = walk.where(block_rows.see(index, segments_B1H), weight_BRH, 0)
            return jax.lax.complex(sums.real + weight_BRH * v_B1H, sums.imag + weight_BRH)

        sums = walk.fold(accumulate, _zeros(q_BRH), (k_BTH, v_BTH, segments_BTH), **block_rows.seen(length))
        return sums.real / jnp.where(sums.imag == 0, 1, sums.imag)

    return [walk.over_blocks(block, jnp.zeros_like(q_BTH), (q_BTH,), segments_BTH, size=rows, causal=causal)]


def _backward(q_BTH, k_BTH, v_BTH, segments_BTH, out_BTH, d_out_BTH, *, causal, rows):
    """Gradients of query, key and value, (B, T, H) each.

    With w_ts = exp(q_t (k_s - best_t)), g_t = d_out_t / sum_s w_ts:
    d_q_t = g_t sum_s w_ts (v_s - out_t) k_s, d_k_s = sum_t w_ts (v_s - out_t) g_t q_t, d_v_s = sum_t w_ts g_t.
    The totals come with d_q and the best keys are found again: saving them would cost more memory than all else.
    """
    length, empty = q_BTH.shape[1], jnp.zeros_like(q_BTH)
    over_blocks = functools.partial(walk.over_blocks, segments_BTH=segments_BTH, size=rows, causal=causal)

    def block_of_queries(block_rows, q_BRH, out_BRH, d_out_BRH):
        best_BRH = _best(block_rows, q_BRH, k_BTH, segments_BTH)

        def accumulate(sums, index, k_B1H, v_B1H, segments_B1H):
            weight_BRH = exp_nonpositive(q_BRH * (k_B1H - best_BRH))
            weight_BRH = walk.where(block_rows.see(index, segments_B1H), weight_BRH, 0)
            slope_BRH = sums.real + weight_BRH * ((v_B1H - out_BRH) * k_B1H)
            return jax.lax.complex(slope_BRH, sums.imag + weight_BRH)

        sums = walk.fold(accumulate, _zeros(q_BRH), (k_BTH, v_BTH, segments_BTH), **block_rows.seen(length))
        g_BRH = jnp.where(sums.imag == 0, 0, d_out_BRH / jnp.where(sums.imag == 0, 1, sums.imag))
        return best_BRH, g_BRH, g_BRH * sums.real

    best_BTH, g_BTH, d_q_BTH = over_blocks(block_of_queries, (empty, empty, empty), (q_BTH, out_BTH, d_out_BTH))
    rows_of = (q_BTH, best_BTH, out_BTH, g_BTH, g_BTH * q_BTH, segments_BTH)

    def block_of_keys(block_rows, k_BRH, v_BRH):

        def accumulate(sums, index, q_B1H, best_B1H, out_B1H, g_B1H, gq_B1H, segments_B1H):
            weight_BRH = exp_nonpositive(q_B1H * (k_BRH - best_B1H))
            weight_BRH = walk.where(block_rows.see(index, segments_B1H, as_queries=False), weight_BRH, 0)
            d_k_BRH = sums.real + weight_BRH * ((v_BRH - out_B1H) * gq_B1H)
            return jax.lax.complex(d_k_BRH, sums.imag + weight_BRH * g_B1H)

        sums = walk.fold(accumulate, _zeros(k_BRH), rows_of, **block_rows.seeing(length))
        return sums.real, sums.imag

    return d_q_BTH, *over_blocks(block_of_keys, (empty, empty), (k_BTH, v_BTH))


def _zeros(like: jax.Array) -> jax.Array:
    return jax.lax.complex(jnp.zeros_like(like), jnp.zeros_like(like))
