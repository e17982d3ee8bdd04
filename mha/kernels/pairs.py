"""Exact attention for d_k = 2 on a CPU: `heads_minor` where a head's query, key and value are a complex number each.

A loop's sums are one array (see `walk.fold`), and two numbers fit a complex one: the output, its weights' total and the
three gradients take a loop each, which computes the weights anew. That costs fewer operations than a matmul over two
columns, whose tile stands empty, and the loads and stores of its logits.

Dimension key: B batch, T position, R row of a block, H head.
"""

import functools

import jax
import jax.numpy as jnp

from mha.kernels import walk
from mha.kernels.exponential import exp_nonpositive


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale: float, causal: bool) -> jax.Array:
    """Attention outputs (B, T, H, 2) for d_k = 2; arguments as in `reference.attend`."""
    return _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal)[0]


def _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal):
    forward = walk.batched(functools.partial(_forward, causal=causal))
    q_BTH, k_BTH, v_BTH = map(_as_complex, (q_BTHK, k_BSHK, v_BSHK))
    out_BTH, total_BTH = forward(q_BTH * scale, k_BTH, v_BTH, segments_BT)
    return _as_real(out_BTH, v_BSHK.dtype), (q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH, total_BTH)


def _attend_bwd(scale, causal, saved, d_out_BTHK):
    q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH, total_BTH = saved
    backward = walk.batched(functools.partial(_backward, causal=causal))
    q_BTH, k_BTH, v_BTH, d_out_BTH = map(_as_complex, (q_BTHK, k_BSHK, v_BSHK, d_out_BTHK))
    d_q_BTH, d_k_BTH, d_v_BTH = backward(q_BTH * scale, k_BTH, v_BTH, segments_BT, out_BTH, total_BTH, d_out_BTH)
    grads = zip((d_q_BTH * scale, d_k_BTH, d_v_BTH), (q_BTHK, k_BSHK, v_BSHK), strict=True)
    return *(_as_real(d_BTH, x.dtype) for d_BTH, x in grads), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _as_complex(x_BTHK):
    x_BTHK = x_BTHK.astype(jnp.promote_types(x_BTHK.dtype, jnp.float32))
    return jax.lax.complex(x_BTHK[..., 0], x_BTHK[..., 1])


def _as_real(x_BTH, dtype):
    return jnp.stack([x_BTH.real, x_BTH.imag], axis=-1).astype(dtype)


def _dot(x, y):
    return x.real * y.real + x.imag * y.imag


def _plus(sums, factor, x):
    """sums + factor x for a real `factor`, whose product with a complex x would cost four multiplications."""
    return jax.lax.complex(sums.real + factor * x.real, sums.imag + factor * x.imag)


def _weight(q, k, best, see):
    """exp(q.k) relative to that of the best key, which is 1; 0 where not seen."""
    return walk.where(see, exp_nonpositive(_dot(q, k - best)), 0)


def _best(rows: walk.Rows, q_BRH, k_BTH, segments_BTH) -> jax.Array:
    """The visible key of each row's largest logit; zero where nothing is visible.

    A logit is taken relative to the largest as q.(k - best), as in `heads_minor`. NaN stands for none seen yet.
    """

    def better(best_BRH, index, k_B1H, segments_B1H):
        take = ~(_dot(q_BRH, k_B1H - best_BRH) <= 0)
        see = rows.see(index, segments_B1H)
        take = take if see is None else take & see
        return jax.lax.complex(jnp.where(take, k_B1H.real, best_BRH.real), jnp.where(take, k_B1H.imag, best_BRH.imag))

    nan_BRH = jnp.full_like(q_BRH.real, jnp.nan)
    none_seen = jax.lax.complex(nan_BRH, nan_BRH)
    best_BRH = walk.fold(better, none_seen, (k_BTH, segments_BTH), **rows.seen(k_BTH.shape[1]))
    return jnp.where(jnp.isnan(best_BRH.real), 0, best_BRH)


def _forward(q_BTH, k_BTH, v_BTH, segments_BTH, *, causal, rows):
    """Every row's output, and the total of its weights; zero where nothing is visible."""
    length = q_BTH.shape[1]

    def block(block_rows, q_BRH):
        best_BRH = _best(block_rows, q_BRH, k_BTH, segments_BTH)

        def add_values(sums, index, k_B1H, v_B1H, segments_B1H):
            return _plus(sums, _weight(q_BRH, k_B1H, best_BRH, block_rows.see(index, segments_B1H)), v_B1H)

        def add_weights(sums, index, k_B1H, segments_B1H):
            return sums + _weight(q_BRH, k_B1H, best_BRH, block_rows.see(index, segments_B1H))

        span, empty = block_rows.seen(length), jnp.zeros_like(q_BRH)
        sums_BRH = walk.fold(add_values, empty, (k_BTH, v_BTH, segments_BTH), **span)
        total_BRH = walk.fold(add_weights, empty.real, (k_BTH, segments_BTH), **span)
        return sums_BRH / jnp.where(total_BRH == 0, 1, total_BRH), total_BRH

    empty = jnp.zeros_like(q_BTH)
    return list(walk.over_blocks(block, (empty, empty.real), (q_BTH,), segments_BTH, size=rows, causal=causal))


def _backward(q_BTH, k_BTH, v_BTH, segments_BTH, out_BTH, total_BTH, d_out_BTH, *, causal, rows):
    """Gradients of query, key and value, (B, T, H) each.

    With w_ts = exp(q_t.(k_s - best_t)), g_t = d_out_t / sum_s w_ts: d_q_t = sum_s w_ts g_t.(v_s - out_t) k_s,
    d_k_s = sum_t w_ts g_t.(v_s - out_t) q_t, d_v_s = sum_t w_ts g_t.
    """
    length, empty = q_BTH.shape[1], jnp.zeros_like(q_BTH)
    over_blocks = functools.partial(walk.over_blocks, segments_BTH=segments_BTH, size=rows, causal=causal)
    g_BTH = jnp.where(total_BTH == 0, 0, d_out_BTH / jnp.where(total_BTH == 0, 1, total_BTH))

    def block_of_queries(block_rows, q_BRH, out_BRH, g_BRH):
        best_BRH = _best(block_rows, q_BRH, k_BTH, segments_BTH)

        def add_to_d_q(sums, index, k_B1H, v_B1H, segments_B1H):
            weight_BRH = _weight(q_BRH, k_B1H, best_BRH, block_rows.see(index, segments_B1H))
            return _plus(sums, weight_BRH * _dot(g_BRH, v_B1H - out_BRH), k_B1H)

        arrays = (k_BTH, v_BTH, segments_BTH)
        return best_BRH, walk.fold(add_to_d_q, jnp.zeros_like(q_BRH), arrays, **block_rows.seen(length))

    best_BTH, d_q_BTH = over_blocks(block_of_queries, (empty, empty), (q_BTH, out_BTH, g_BTH))

    def block_of_keys(block_rows, k_BRH, v_BRH):
        def weight(index, q_B1H, best_B1H, segments_B1H):
            return _weight(q_B1H, k_BRH, best_B1H, block_rows.see(index, segments_B1H, as_queries=False))

        def add_to_d_k(sums, index, q_B1H, best_B1H, segments_B1H, out_B1H, g_B1H):
            return _plus(sums, weight(index, q_B1H, best_B1H, segments_B1H) * _dot(g_B1H, v_BRH - out_B1H), q_B1H)

        def add_to_d_v(sums, index, q_B1H, best_B1H, segments_B1H, g_B1H):
            return _plus(sums, weight(index, q_B1H, best_B1H, segments_B1H), g_B1H)

        span, empty = block_rows.seeing(length), jnp.zeros_like(k_BRH)
        d_k_BRH = walk.fold(add_to_d_k, empty, (q_BTH, best_BTH, segments_BTH, out_BTH, g_BTH), **span)
        d_v_BRH = walk.fold(add_to_d_v, empty, (q_BTH, best_BTH, segments_BTH, g_BTH), **span)
        return d_k_BRH, d_v_BRH

    return d_q_BTH, *over_blocks(block_of_keys, (empty, empty), (k_BTH, v_BTH))
