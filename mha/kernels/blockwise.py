"""Exact attention by matmuls, a few heads and rows at a time, so that the logits in use stay in the cache.

Blocks of rows stop at the diagonal where attention is causal. The backward pass recomputes the weights (Dao et al.
2022, FlashAttention, appendix B) from each row's largest logit and total, which are saved in place of the usual
log-sum-exp: at a logit of 1e4 their float32 sum is off by 1e-3, and so would be every weight.

Dimension key: B batch, H head (both of one piece), T position, R row of a block, S key position, K head width.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mha.kernels.batching import fold_vmap, in_pieces, largest_divisor
from mha.kernels.exponential import exp_nonpositive

_TILE = 1 << 18  # logits of a tile (1 MiB of float32) on a CPU, which has a cache to keep them in
_TILE_ELSEWHERE = 1 << 26  # of one that fills an accelerator, where each piece is a round of launches; not measured
_ROWS = 64  # rows of a block at least
_BLOCKS = 4  # blocks of rows at most: each is compiled on its own


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale: float, causal: bool) -> jax.Array:
    """Attention outputs (B, T, H, K); arguments as in `reference.attend`."""
    return _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal)[0]


def _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal):
    forward = _batched(functools.partial(_forward, scale=scale, causal=causal))
    out_BTHK, top_BTH1, total_BTH1 = forward(segments_BT, (q_BTHK, k_BSHK, v_BSHK))
    return out_BTHK.astype(v_BSHK.dtype), (q_BTHK, k_BSHK, v_BSHK, segments_BT, top_BTH1, total_BTH1)


def _attend_bwd(scale, causal, saved, d_out_BTHK):
    q_BTHK, k_BSHK, v_BSHK, segments_BT, top_BTH1, total_BTH1 = saved
    backward = _batched(functools.partial(_backward, scale=scale, causal=causal))
    inputs = (q_BTHK, k_BSHK, v_BSHK)
    grads = backward(segments_BT, (*inputs, top_BTH1, total_BTH1, d_out_BTHK))
    return *(d.astype(x.dtype) for d, x in zip(grads, inputs, strict=True)), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _batched(function: Callable) -> Callable:
    """`function` of (B, H, T, K) arrays, given and returned as (B, T, H, K), applied to pieces of batch and heads."""

    @fold_vmap
    def run(segments_BT, arrays):
        batch, length, heads, _ = arrays[0].shape
        wide = jnp.promote_types(arrays[0].dtype, jnp.float32)
        rows = min(length, max(_ROWS, -(-length // _BLOCKS)))
        cpu = jax.default_backend() == "cpu"
        room = (_TILE if cpu else _TILE_ELSEWHERE) // (rows * length)
        heads_piece = largest_divisor(heads, room)
        # XLA:CPU takes 1.1 to 1.8 times as long for a training step (d_model 32 and 64, h 2 to 8, T = 64, one core)
        # where the batch is one piece, outside a loop, as where it is two. A prime batch is cut in ones.
        most = min(room // heads, batch // 2) if cpu else room // heads
        batch_piece = largest_divisor(batch, most) if heads_piece == heads else 1
        groups = heads // heads_piece

        def split(x_BTHK):
            x_BTGHK = x_BTHK.astype(wide).reshape(batch, length, groups, heads_piece, -1)
            return x_BTGHK.transpose(0, 2, 3, 1, 4).reshape(batch * groups, heads_piece, length, -1)

        def join(x_BHTK):
            x_BGHTK = x_BHTK.reshape(batch, groups, heads_piece, length, -1)
            return x_BGHTK.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, -1)

        if segments_BT is not None:
            segments_BT = jnp.repeat(segments_BT, groups, axis=0)
        piece = functools.partial(function, rows=rows)
        return [join(x) for x in in_pieces(piece, batch_piece, segments_BT, [split(x) for x in arrays])]

    return run


def _forward(segments_BT, arrays, *, scale, causal, rows):
    """Outputs (B, H, T, K), and each row's largest visible logit and total weight (B, H, T, 1)."""
    q_BHTK, k_BHSK, v_BHSK = arrays
    length = q_BHTK.shape[2]
    k_BHKS = k_BHSK.swapaxes(2, 3)
    blocks = []
    for start in range(0, length, rows):
        block = slice(start, min(start + rows, length))
        stop = block.stop if causal else length
        see = _visible(segments_BT, block, stop, causal)
        logits_BHRS = _matmul(q_BHTK[:, :, block] * scale, k_BHKS[..., :stop])
        least = jnp.finfo(logits_BHRS.dtype).min
        top_BHR1 = jnp.max(_where(see, logits_BHRS, least), axis=-1, keepdims=True)
        weights_BHRS = _where(see, exp_nonpositive(logits_BHRS - top_BHR1), 0)
        total_BHR1 = jnp.sum(weights_BHRS, axis=-1, keepdims=True)
        out_BHRK = _matmul(weights_BHRS, v_BHSK[:, :, :stop]) / jnp.where(total_BHR1 == 0, 1, total_BHR1)
        blocks.append((out_BHRK, top_BHR1, total_BHR1))
    return [jnp.concatenate(parts, axis=2) for parts in zip(*blocks, strict=True)]


def _backward(segments_BT, arrays, *, scale, causal, rows):
    """Gradients of query, key and value, (B, H, T, K) each.

    The products keep the weights' (R, S) orientation: a transposed tile would cost more than the matmul it feeds. The
    mean of d_weights is taken over the tile and not as d_out . out, so that it cancels exactly where one weight is 1.
    """
    q_BHTK, k_BHSK, v_BHSK, top_BHT1, total_BHT1, d_out_BHTK = arrays
    length = q_BHTK.shape[2]
    k_BHKS, v_BHKS = k_BHSK.swapaxes(2, 3), v_BHSK.swapaxes(2, 3)
    q_BHTK = q_BHTK * scale
    d_out_BHTK = jnp.where(total_BHT1 == 0, 0, d_out_BHTK)
    total_BHT1 = jnp.where(total_BHT1 == 0, 1, total_BHT1)
    d_out_BHTK = d_out_BHTK / total_BHT1

    d_q_blocks, d_k_BHKS, d_v_BHKS = [], jnp.zeros_like(k_BHKS), jnp.zeros_like(v_BHKS)
    for start in range(0, length, rows):
        block = slice(start, min(start + rows, length))
        stop = block.stop if causal else length
        see = _visible(segments_BT, block, stop, causal)
        logits_BHRS = _matmul(q_BHTK[:, :, block], k_BHKS[..., :stop])
        weights_BHRS = _where(see, exp_nonpositive(logits_BHRS - top_BHT1[:, :, block]), 0)
        d_weights_BHRS = _matmul(d_out_BHTK[:, :, block], v_BHKS[..., :stop])
        mean_BHR1 = jnp.sum(weights_BHRS * d_weights_BHRS, axis=-1, keepdims=True) / total_BHT1[:, :, block]
        d_logits_BHRS = weights_BHRS * (d_weights_BHRS - mean_BHR1)
        d_q_blocks.append(_matmul(d_logits_BHRS, k_BHSK[:, :, :stop]) * scale)
        d_k_BHKS = d_k_BHKS.at[..., :stop].add(_matmul(q_BHTK[:, :, block].swapaxes(2, 3), d_logits_BHRS))
        d_v_BHKS = d_v_BHKS.at[..., :stop].add(_matmul(d_out_BHTK[:, :, block].swapaxes(2, 3), weights_BHRS))
    return jnp.concatenate(d_q_blocks, axis=2), d_k_BHKS.swapaxes(2, 3), d_v_BHKS.swapaxes(2, 3)


def _visible(segments_BT, block: slice, stop: int, causal: bool):
    """Which of the first `stop` keys each row of a block sees, (B or 1, 1, R, S); None: all see all."""
    see = None
    if causal:
        see = (jnp.arange(block.start, block.stop)[:, None] >= jnp.arange(stop)[None])[None, None]
    if segments_BT is not None:
        rows_BR1, keys_B1S = segments_BT[:, block, None], segments_BT[:, None, :stop]
        same_BHRS = ((rows_BR1 == keys_B1S) & (rows_BR1 != 0))[:, None]
        see = same_BHRS if see is None else see & same_BHRS
    return see


def _where(see, x, otherwise):
    return x if see is None else jnp.where(see, x, otherwise)


def _matmul(x, y):
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
