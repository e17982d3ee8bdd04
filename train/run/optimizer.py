"""AdamW with gradient clipping, warm-up and decay, its peak learning rate a traced value so that one compile serves a
whole sweep."""

import jax
import jax.numpy as jnp
import optax

from train.config import TrainConfig


def transformation(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) up to the learning rate, which `schedule` supplies; weights decay, scales of the
    norms do not."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=0.9, b2=0.98),
        optax.add_decayed_weights(config.weight_decay, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)),
    )


def schedule(config: TrainConfig) -> optax.Schedule:
    """step -> multiple of the peak rate, 0 to 1: linear warm-up, then cosine to 0 at the last step, or constant."""
    if config.schedule == "constant":
        linear = optax.warmup_constant_schedule(0.0, 1.0, config.warmup_steps)
        return linear if config.warmup_steps else optax.constant_schedule(1.0)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, config.warmup_steps, config.steps)


def scaled(updates, learning_rate: jax.Array):
    """`updates` times -learning_rate."""
    return jax.tree.map(lambda update: -jnp.asarray(learning_rate, update.dtype) * update, updates)
