"""Exact attention for d_k = 1 on accelerators: a Pallas kernel with one (document, head) a lane.

The arithmetic is that of `heads_minor` (see there), with its three exponentials a visible pair; what differs is the
layout. Documents and heads together form the minor axis, so every load is a row of 128 lanes. A program holds a block
of rows in registers and walks the keys (or queries) one row at a time. The rows of a block are tiles of 8 x 128 on a
TPU (one vector register) and vectors of 128 on a GPU (one lane a thread of a warpgroup).

Mosaic GPU needs Hopper or newer. Neither target has been timed by this project: the kernels are checked exact in
interpret mode and lowered for both targets.

Dimension key: T position, N documents x heads, R row of a block, L lane.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from mha.kernels.batching import fold_vmap

_LANES = 128
_ROWS = {"gpu": 16, "tpu": 32}  # rows a program holds
_TILE = {"gpu": 0, "tpu": 8}  # rows a tile; 0: a row is a vector


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def attend(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale: float, causal: bool, target: str, interpret: bool = False):
    """Attention outputs (B, T, H, 1) for d_k = 1; `target` is `gpu` or `tpu`, the rest as in `reference.attend`."""
    return _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal, target, interpret)[0]


def _attend_fwd(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale, causal, target, interpret):
    arrays = [x[..., 0].astype(jnp.float32) for x in (q_BTHK, k_BSHK, v_BSHK)]
    arrays[0] = arrays[0] * scale
    out_BTH = _batched(_forward, causal, target, interpret)(arrays, segments_BT)[0]
    return out_BTH[..., None].astype(v_BSHK.dtype), (q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH)


def _attend_bwd(scale, causal, target, interpret, saved, d_out_BTHK):
    q_BTHK, k_BSHK, v_BSHK, segments_BT, out_BTH = saved
    arrays = [x[..., 0].astype(jnp.float32) for x in (q_BTHK, k_BSHK, v_BSHK, out_BTH[..., None], d_out_BTHK)]
    arrays[0] = arrays[0] * scale
    d_q_BTH, d_k_BTH, d_v_BTH = _batched(_backward, causal, target, interpret)(arrays, segments_BT)
    grads = zip((d_q_BTH * scale, d_k_BTH, d_v_BTH), (q_BTHK, k_BSHK, v_BSHK), strict=True)
    return *(d_BTH[..., None].astype(x.dtype) for d_BTH, x in grads), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _batched(function, causal, target, interpret):
    """`function` of (T, N) arrays, given and returned as (B, T, H); T padded to whole blocks, N to whole rows."""

    @fold_vmap
    def run(arrays, segments_BT):
        batch, length, heads = arrays[0].shape
        spare_T, spare_N = -length % _ROWS[target], -(batch * heads) % _LANES
        if segments_BT is None and spare_T and not causal:
            segments_BT = jnp.ones((batch, length), jnp.int32)

        def flat(x_BTH):
            x_TN = x_BTH.swapaxes(0, 1).reshape(length, batch * heads)
            return jnp.pad(x_TN, ((0, spare_T), (0, spare_N)))

        segments_TN = None
        if segments_BT is not None:
            segments_TN = flat(jnp.broadcast_to(segments_BT[..., None], (batch, length, heads)))
        call = functools.partial(_call, target=target, interpret=interpret, causal=causal)
        out = function(call, [flat(x) for x in arrays], segments_TN)
        return [x[:length, : batch * heads].reshape(length, batch, heads).swapaxes(0, 1) for x in out]

    return run


def _forward(call, arrays, segments_TN):
    q_TN, k_TN, v_TN = arrays
    return call(_output_kernel, rows=(q_TN,), walked=(k_TN, v_TN), segments_TN=segments_TN, outputs=1)


def _backward(call, arrays, segments_TN):
    q_TN, k_TN, v_TN, out_TN, d_out_TN = arrays
    best_TN, g_TN, d_q_TN = call(
        _query_kernel, rows=(q_TN, out_TN, d_out_TN), walked=(k_TN, v_TN), segments_TN=segments_TN, outputs=3
    )
    d_k_TN, d_v_TN = call(
        _key_kernel, rows=(k_TN, v_TN), walked=(q_TN, best_TN, out_TN, g_TN), segments_TN=segments_TN, outputs=2
    )
    return d_q_TN, d_k_TN, d_v_TN


def _call(kernel, *, rows, walked, segments_TN, outputs, target, interpret, causal):
    """Run `kernel` for each block of rows and 128 lanes.

    The kernel gets tiles of the arrays in `rows`, and `fold(update, sums, ...)`, which walks the arrays in `walked` and
    the segments; it returns a tuple of tiles for each of its outputs, a list over the block's tiles.
    """
    length, lanes = rows[0].shape
    size, tile = _ROWS[target], _TILE[target]
    segments = () if segments_TN is None else (segments_TN,)
    as_queries = kernel is not _key_kernel

    def program(column, block, *refs):
        if target == "gpu":  # whole arrays in global memory; on a TPU the block specs have cut them
            part = pl.ds(column * _LANES, _LANES)
            cut = (pl.ds(block * size, size), part)
            of_rows = len(rows) + len(segments)
            middle = of_rows + len(walked) + len(segments)
            views = [cut if i < of_rows or i >= middle else (slice(None), part) for i in range(len(refs))]
            refs = [ref.at[view] for ref, view in zip(refs, views, strict=True)]
        row_refs, refs = refs[: len(rows) + len(segments)], refs[len(rows) + len(segments) :]
        walk_refs, out_refs = refs[: len(walked) + len(segments)], refs[len(walked) + len(segments) :]
        starts = range(0, size, tile or 1)
        tiles = [[ref[s : s + tile] if tile else ref[s] for ref in row_refs] for s in starts]
        start = block * size
        shape = (tile, _LANES) if tile else (_LANES,)
        indices = [jnp.full(shape, start + s, jnp.int32) for s in starts]
        if tile:
            indices = [index + jax.lax.broadcasted_iota(jnp.int32, shape, 0) for index in indices]
        if causal and as_queries:
            first, last = 0, start + size
        else:
            first, last = (start if causal else 0), length

        def see(index, tile_arrays, at, entries):
            """Whether a tile's rows and the position walked see each other in the direction asked; None: always."""
            seen = None
            if causal:
                seen = index >= at if as_queries else index <= at
            if segments:
                same = (tile_arrays[-1] == entries[-1]) & (entries[-1] != 0)
                seen = same if seen is None else seen & same
            return seen

        def fold(update, sums):
            """Every tile's `sums` after `update(number, sums, see, *entries)` for each position walked."""

            def step(at, sums):
                entries = [ref[pl.ds(at, 1)] if tile else ref[at] for ref in walk_refs]
                return [
                    update(i, of_tile, see(indices[i], tiles[i], at, entries), *entries[: len(walked)])
                    for i, of_tile in enumerate(sums)
                ]

            return jax.lax.fori_loop(first, last, step, sums)

        results = kernel([tuple(arrays[: len(rows)]) for arrays in tiles], fold)
        for s, result in zip(starts, results, strict=True):
            for ref, value in zip(out_refs, result, strict=True):
                if tile:
                    ref[s : s + tile] = value
                else:
                    ref[s] = value

    operands = (*rows, *segments, *walked, *segments)
    shapes = (jax.ShapeDtypeStruct((length, lanes), jnp.float32),) * outputs
    grid = (lanes // _LANES, length // size)
    if target == "gpu" and not interpret:
        return _on_mosaic_gpu(program, operands, shapes, grid)

    def by_program_id(*refs):
        program(pl.program_id(0), pl.program_id(1), *refs)

    specs = {}
    if target == "tpu":
        row = pl.BlockSpec((size, _LANES), lambda column, block: (block, column))
        walk = pl.BlockSpec((length, _LANES), lambda column, block: (0, column))
        in_rows, in_walk = len(rows) + len(segments), len(walked) + len(segments)
        specs = dict(in_specs=[row] * in_rows + [walk] * in_walk, out_specs=(row,) * outputs)
    return pl.pallas_call(by_program_id, grid=grid, out_shape=shapes, interpret=interpret, **specs)(*operands)


def _on_mosaic_gpu(program, operands, shapes, grid):
    from jax.experimental.pallas import mosaic_gpu as plgpu  # registers CUDA's dialects: only where they are wanted

    def by_axis_index(*refs):
        program(jax.lax.axis_index("column"), jax.lax.axis_index("block"), *refs)

    params = plgpu.CompilerParams(approx_math=True)  # exp as ex2.approx, within 2 ulp
    kernel = plgpu.kernel(
        by_axis_index, out_type=shapes, grid=grid, grid_names=("column", "block"), compiler_params=params
    )
    return kernel(*operands)


def _best(queries, fold):
    """The visible key of each row's largest logit, zero where nothing is visible; as `heads_minor._best`."""
    largest = float(jnp.finfo(jnp.float32).max)

    def extend(i, extremes, see, k, *_):
        high, low = extremes
        return jnp.maximum(high, _where(see, k, -largest)), jnp.minimum(low, _where(see, k, largest))

    extremes = fold(extend, [(_constant(q, -largest), _constant(q, largest)) for q in queries])
    pairs = zip(queries, extremes, strict=True)
    return [jnp.where(high >= low, jnp.where(q >= 0, high, low), jnp.zeros_like(q)) for q, (high, low) in pairs]


def _output_kernel(tiles, fold):
    queries = [q for (q,) in tiles]
    best = _best(queries, fold)

    def accumulate(i, sums, see, k, v):
        weight = _where(see, jnp.exp(queries[i] * (k - best[i])), 0.0)
        return sums[0] + weight * v, sums[1] + weight

    sums = fold(accumulate, [(_constant(q, 0.0), _constant(q, 0.0)) for q in queries])
    return [(numerator / _nonzero(total),) for numerator, total in sums]


def _query_kernel(tiles, fold):
    best = _best([q for q, _, _ in tiles], fold)

    def accumulate(i, sums, see, k, v):
        q, out, _ = tiles[i]
        weight = _where(see, jnp.exp(q * (k - best[i])), 0.0)
        return sums[0] + weight * ((v - out) * k), sums[1] + weight

    sums = fold(accumulate, [(_constant(q, 0.0), _constant(q, 0.0)) for q, _, _ in tiles])
    results = []
    for i, (slope, total) in enumerate(sums):
        g = jnp.where(total == 0, jnp.zeros_like(total), tiles[i][2] / _nonzero(total))
        results.append((best[i], g, g * slope))
    return results


def _key_kernel(tiles, fold):
    def accumulate(i, sums, see, q, best, out, g):
        k, v = tiles[i]
        weight = _where(see, jnp.exp(q * (k - best)), 0.0)
        return sums[0] + weight * ((v - out) * (g * q)), sums[1] + weight * g

    return fold(accumulate, [(_constant(k, 0.0), _constant(k, 0.0)) for k, _ in tiles])


def _where(see, x, otherwise: float):
    return x if see is None else jnp.where(see, x, jnp.full_like(x, otherwise))


def _constant(like, value: float):
    """`value`, laid out as `like`: a loop's carry keeps its layout, and Mosaic GPU gives a constant one of its own."""
    return like * 0.0 + value


def _nonzero(total):
    return jnp.where(total == 0, jnp.ones_like(total), total)
