"""A function of one replica, mapped over the leading replica axis of everything that it takes."""

import jax
import jax.numpy as jnp


def over_replicas(function, replica_map: str):
    """`function` mapped over a leading replica axis, all at once (`vmap`) or one after another (`scan`)."""
    if replica_map == "vmap":
        return jax.vmap(function)
    return lambda *args: jax.lax.map(lambda one: function(*one), args)


def advance_first_replicas(function, count: jax.Array, state, *args):
    """`function` of (state, *args), which returns a new state and a result, mapped over the first `count` rows of a
    leading replica axis, one after another. The new state takes the place of the old in memory; rows beyond the first
    `count` stay as they are, and are zero in the result. The count is a traced value, so one program serves packs of
    different sizes."""
    row = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731
    rows = jax.tree.leaves(args)[0].shape[0]
    _, shapes = jax.eval_shape(lambda: function(row(state, 0), *row(args, 0)))
    empty = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)

    def one(index, carry):
        new = function(row(carry[0], index), *row(args, index))
        return jax.tree.map(lambda all_, new: all_.at[index].set(new), carry, new)

    return jax.lax.fori_loop(0, count, one, (state, empty))
