"""Gates that learn to close: hard concrete gates under an L0 penalty (Louizos et al. 2018; Voita et al. 2019).

A gate is g = clip((ZETA - GAMMA) s + GAMMA, 0, 1), s = sigmoid((log u - log(1 - u) + log_a) / BETA), u ~ U(0, 1); it is
exactly 0 or 1 with positive probability. The weights stay as they are.

Dimension key: L layer, H head.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eval.heads.importance import engine
from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer
from train.data.gold import EvalWindows

BETA, GAMMA, ZETA = 0.33, -0.1, 1.1  # as in the authors' code
EDGE = 1e-6  # u stays so far from 0 and 1
START = 2.0  # of log_a: P(open) = .93
ADAM = optax.adam(0.1)


def drawn(key: jax.Array, log_a: jax.Array) -> jax.Array:
    """Gates in [0, 1], one draw for each of `log_a`."""
    u = jax.random.uniform(key, log_a.shape, log_a.dtype, EDGE, 1 - EDGE)
    s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_a) / BETA)
    return jnp.clip((ZETA - GAMMA) * s + GAMMA, 0, 1)


def p_open(log_a: jax.Array) -> jax.Array:
    """The probability that a drawn gate is not 0; their sum is the expected L0 norm."""
    return jax.nn.sigmoid(log_a - BETA * math.log(-GAMMA / ZETA))


def settled(log_a: jax.Array) -> jax.Array:
    """The gate at evaluation: the draw at u = 1/2 without its temperature."""
    return jnp.clip((ZETA - GAMMA) * jax.nn.sigmoid(log_a) + GAMMA, 0, 1)


def learned(
    model: ModelConfig, params: dict, windows: EvalWindows, strength: float, steps: int, seed: int
) -> np.ndarray:
    """log_a (L, H) after `steps` steps of Adam on a batch's mean loss in nats a token, plus strength * sum P(open);
    gates are drawn anew for every batch.

    Args:
      strength: lambda, nats a token and expected open head.
    """
    batches = engine.batches(windows, 4 * engine.windows_of(model))
    log_a = jnp.full((model.num_layers, model.num_heads), START)
    state, key = ADAM.init(log_a), jax.random.key(seed)
    for number in range(steps):
        columns = batches[number % len(batches)][1]
        log_a, state = _step(model, params, columns, log_a, state, jax.random.fold_in(key, number), strength)
    return np.asarray(log_a)


@functools.partial(jax.jit, static_argnums=0)
def _step(model: ModelConfig, params: dict, columns: tuple, log_a, state, key, strength):
    windows = engine.Windows(*columns)

    def penalised(log_a):
        gates_LH = drawn(key, log_a)
        edits = Edits(gates_LH)
        out_BTV, _ = Transformer(model).apply({"params": params}, windows.tokens_BT, windows.segments_BT, edits)
        loss = jnp.sum(windows.loss(out_BTV)) / jnp.maximum(jnp.sum(windows.counted_BT), 1)
        return loss + strength * jnp.sum(p_open(log_a))

    updates, state = ADAM.update(jax.grad(penalised)(log_a), state)
    return optax.apply_updates(log_a, updates), state
