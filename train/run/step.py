"""Training steps, pure: one replica's K steps, and the replica axis around them.

Dimension key: R replica, K step of a dispatch, B batch, T position, N token of the corpus.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mha.transformer import ModelConfig, Transformer
from train.config import TrainConfig
from train.losses import masked
from train.losses.token_loss import segments, token_losses
from train.replica_axis import advance_first_replicas, over_replicas
from train.run import optimizer


class State(NamedTuple):
    """What a checkpoint holds; every leaf has the replica axis in front."""

    params: dict
    opt_state: optax.OptState
    diverged_at: jax.Array  # int32: the step whose loss or gradient was not finite, -1 while there is none


def batch_loss(model: ModelConfig, bos: int, params: dict, tokens_BT1: jax.Array) -> jax.Array:
    """Mean loss (nats/token) over a packed batch; a BOS is never predicted, since it begins another document."""
    losses_BT = token_losses(model, params, tokens_BT1, segments(tokens_BT1[:, :-1], bos))
    counted_BT = tokens_BT1[:, 1:] != bos
    return jnp.sum(losses_BT * counted_BT) / jnp.maximum(jnp.sum(counted_BT), 1)


def masked_batch_loss(
    model: ModelConfig, bos: int, params: dict, tokens_BT: jax.Array, hidden_BT: jax.Array
) -> jax.Array:
    """Mean loss (nats/token) over the hidden tokens of a packed batch."""
    losses_BT = masked.losses(model, params, tokens_BT, segments(tokens_BT, bos), hidden_BT)
    return jnp.sum(losses_BT * hidden_BT) / jnp.maximum(jnp.sum(hidden_BT), 1)


def value_and_grad(loss_of, count_of, parts: int, params, *batch):
    """Mean loss of a batch and its gradient in `params`, from `parts` cut out of it one after another, so that the
    activations of one part alone are held at a time.

    Args:
      loss_of: (params, *part) -> mean loss of a part.
      count_of: (*part) -> over how many losses that is the mean, since parts may differ in it.
      batch: arrays with the batch axis in front, which `parts` divides.
    """
    if parts == 1:
        return jax.value_and_grad(loss_of)(params, *batch)
    # Every `parts`-th row, so that each device that shares a batch has rows of each part.
    cut = [jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1) for rows in batch]
    counts = jax.vmap(count_of)(*cut)
    weights = counts / jnp.maximum(counts.sum(), 1)

    def add(sums, weighted):
        weight, part = weighted
        of_part = jax.value_and_grad(loss_of)(params, *part)
        return jax.tree.map(lambda all_, new: all_ + weight.astype(new.dtype) * new, sums, of_part), None

    shapes = jax.eval_shape(jax.value_and_grad(loss_of), params, *(rows[0] for rows in cut))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, (weights, cut))[0]


def init(model: ModelConfig, config: TrainConfig, init_seeds_R: jax.Array) -> State:
    """The state of every replica before step 0, each from its own seed.

    Not for jit: op by op, the cells of a grid share the compiled draws, and each distinct shape costs a second.
    """

    def one(seed):
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        params = Transformer(model).lazy_init(jax.random.key(seed), tokens)["params"]  # without the forward pass
        return State(params, optimizer.transformation(config).init(params), jnp.int32(-1))

    return jax.vmap(one)(init_seeds_R)


def run(
    model: ModelConfig,
    config: TrainConfig,
    replica_map: str,
    bos: int,
    state: State,
    tokens_N: jax.Array,
    starts_RKB: jax.Array,
    rates_R: jax.Array,
    first_step: jax.Array,
    num_steps: jax.Array,
    num_replicas: jax.Array | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """Trains every replica, or under `scan` the first `num_replicas`, for `num_steps` <= K steps.

    Both numbers are traced values, so one compiled program serves any dispatch and its length never shapes the bits. A
    replica whose loss or gradient is not finite keeps its last finite state from then on.

    Returns:
      The new state, and `loss`, `grad_norm` and `learning_rate`, (R, K) each, zero beyond `num_steps`.
    """
    transformation, schedule = optimizer.transformation(config), optimizer.schedule(config)
    offsets_1T = jnp.arange(model.seq_len + 1)[None]
    steps_in_dispatch = starts_RKB.shape[1]

    def one_replica(state, starts_KB, peak_rate):
        def one_step(index, carry):
            state, metrics = carry
            step = first_step + index
            tokens_BT1 = tokens_N[starts_KB[index][:, None] + offsets_1T].astype(jnp.int32)
            if config.objective == "causal":
                loss_of, batch = functools.partial(batch_loss, model, bos), (tokens_BT1,)
                counted = lambda tokens_BT1: jnp.sum(tokens_BT1[:, 1:] != bos)  # noqa: E731
            else:
                tokens_BT, fraction = tokens_BT1[:, :-1], config.mask_fraction
                hidden_BT = masked.hidden_in_training(tokens_BT, starts_KB[index], step, fraction, bos)
                loss_of, batch = functools.partial(masked_batch_loss, model, bos), (tokens_BT, hidden_BT)
                counted = lambda tokens_BT, hidden_BT: jnp.sum(hidden_BT)  # noqa: E731
            loss, grads = value_and_grad(loss_of, counted, config.accumulate, state.params, *batch)
            norm, rate = optax.tree.norm(grads), peak_rate * schedule(step)
            updates, opt_state = transformation.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, optimizer.scaled(updates, rate))
            finite = jnp.isfinite(loss) & jnp.isfinite(norm)
            running = state.diverged_at < 0
            kept = jax.tree.map(
                lambda new, old: jnp.where(finite & running, new, old),
                (params, opt_state),
                (state.params, state.opt_state),
            )
            diverged_at = jnp.where(running & ~finite, step, state.diverged_at)
            values = {"loss": loss, "grad_norm": norm, "learning_rate": rate}
            metrics = {name: metrics[name].at[index].set(value.astype(jnp.float32)) for name, value in values.items()}
            return State(*kept, diverged_at), metrics

        empty = {name: jnp.zeros(steps_in_dispatch, jnp.float32) for name in ("loss", "grad_norm", "learning_rate")}
        return jax.lax.fori_loop(0, num_steps, one_step, (state, empty))

    if replica_map == "scan" and num_replicas is not None:
        return advance_first_replicas(one_replica, num_replicas, state, starts_RKB, rates_R)
    return over_replicas(one_replica, replica_map)(state, starts_RKB, rates_R)
