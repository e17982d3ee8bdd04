"""A function of one replica, mapped over the leading replica axis of everything that it takes."""

import jax
import jax.numpy as jnp


def over_replicas(function, replica_map: str):
    """`function` mapped over a leading replica axis, all at once (`vmap`) or one after another (`scan`)."""
    if replica_map == "vmap":
        return jax.vmap(function)
    return lambda *args: jax.lax.map(lambda one: function(*one), args)


def over_first_replicas(function, count: jax.Array, *args):
    """`function` mapped over the first `count` rows of a leading replica axis, one after another; the other rows of the
    result are zero. The count is a traced value, so one program serves packs of different sizes."""
    return advance_first_replicas(lambda _, *row: ((), function(*row)), count, (), *args)[1]


def advance_first_replicas(function, count: jax.Array, state, *args):
    """As `over_first_replicas` for a `function` of (state, *args) that returns a new state beside its result. The new
    state takes the place of the old in memory; rows beyond the first `count` stay as they are."""
    row = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731
    rows = jax.tree.leaves(args)[0].shape[0]
    _, shapes = jax.eval_shape(lambda: function(row(state, 0), *row(args, 0)))
    empty = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)

    def one(index, carry):
        new = function(row(carry[0], index), *row(args, index))
        return jax.tree.map(lambda all_, new: all_.at[index].set(new), carry, new)

    return jax.lax.fori_loop(0, count, one, (state, empty))
