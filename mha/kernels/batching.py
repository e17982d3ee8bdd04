"""Batch axes for the fast paths: replicas fold into the batch, and a batch is cut into pieces."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def fold_vmap(function: Callable) -> Callable:
    """`function` with `jax.vmap` over it folded into its batch axis.

    Left alone, vmap would put the replica axis inside every tile, which then no longer fits the cache. `function` takes
    and returns pytrees of arrays whose first axis is the batch, and must treat its entries independently.
    """
    folded = jax.custom_batching.custom_vmap(function)

    @folded.def_vmap
    def rule(axis_size, in_batched, *args):
        def fold(array, batched):
            if not batched:
                array = jnp.broadcast_to(array, (axis_size, *array.shape))
            return array.reshape(-1, *array.shape[2:])

        out = folded(*jax.tree.map(fold, list(args), list(in_batched)))
        out = jax.tree.map(lambda array: array.reshape(axis_size, -1, *array.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return folded


def in_pieces(function: Callable, piece: int, *arrays):
    """`function` applied to `piece` entries of the first axis at a time; `piece` divides that axis.

    The next piece is cut at the end of a step and carried: a cut at a traced index inside one of `function`'s kernels
    would be loaded anew for every element, and LLVM would not vectorise that kernel. The results' buffers start as
    copies of an entry of the last array: zeros depend on nothing, and XLA would hold those of every layer's backward
    pass from the program's start. So what is computed last should be the last array.
    """
    leaves = jax.tree.leaves(arrays)
    size = leaves[0].shape[0]
    if piece == size:
        return function(*arrays)

    def cut(number):
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number * piece, piece), arrays)

    def step(number, carry):
        part, filled = carry
        done = function(*part)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=number * piece, axis=0)
        return cut(number + 1), jax.tree.map(put, filled, done)

    def buffer(x):
        entry = leaves[-1][(0,) * leaves[-1].ndim]
        return jnp.broadcast_to(jnp.real(entry).astype(x.dtype), (size, *x.shape[1:]))

    buffers = jax.tree.map(buffer, jax.eval_shape(function, *cut(0)))
    return jax.lax.fori_loop(0, size // piece, step, (cut(0), buffers))[1]


@functools.cache
def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit` (1 where `limit` is below 1)."""
    return max(d for d in range(1, number + 1) if number % d == 0 and (d <= limit or d == 1))
