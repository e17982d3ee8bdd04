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
    row = lambda index: jax.tree.map(lambda leaf: leaf[index], args)  # noqa: E731
    rows = jax.tree.leaves(args)[0].shape[0]
    empty = jax.tree.map(
        lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), jax.eval_shape(lambda: function(*row(0)))
    )

    def one(index, results):
        return jax.tree.map(lambda all_, new: all_.at[index].set(new), results, function(*row(index)))

    return jax.lax.fori_loop(0, count, one, empty)
