"""The masked-language objective (Devlin et al. 2019): some tokens are hidden, and told from those on both sides.

The model has a word more, its last, that stands in for a hidden token; every hidden token is replaced by it. A head may
look ahead, so losses compare with one another and not with causal ones.

Dimension key: B window, T position, V vocabulary.
"""

import jax
import jax.numpy as jnp
import optax

from mha.transformer import ModelConfig, Transformer

ROUNDS = 7  # evaluation hides a seventh of the tokens at a time, whatever share training hid


def hidden_in_training(tokens_BT: jax.Array, starts_B: jax.Array, step: jax.Array, fraction: float, bos: int):
    """Which tokens a step hides, bool (B, T): each but BOS with probability `fraction`, a function of the step and of
    where in the corpus its window begins; so every cell hides the same ones."""
    key = jax.random.fold_in(jax.random.key(0), step)
    keys_B = jax.vmap(lambda start: jax.random.fold_in(key, start))(starts_B)
    draws_BT = jax.vmap(lambda one: jax.random.uniform(one, tokens_BT.shape[1:]))(keys_B)
    return (draws_BT < fraction) & (tokens_BT != bos)


def round_of(numbers_B: jax.Array, length: int) -> jax.Array:
    """Which of ROUNDS evaluations hides each of `length` targets of the windows `numbers_B`: int (B, length), sets of
    equal size up to one, drawn by the window's number."""

    def one(number):
        key = jax.random.fold_in(jax.random.key(1), number)
        return jax.random.permutation(key, length) % ROUNDS

    return jax.vmap(one)(numbers_B)


def losses(
    model: ModelConfig, params: dict, tokens_BT: jax.Array, segments_BT: jax.Array, hidden_BT: jax.Array
) -> jax.Array:
    """Negative log-likelihood in nats of the tokens themselves, (B, T), where those of `hidden_BT` are not seen."""
    seen_BT = jnp.where(hidden_BT, model.vocab_size - 1, tokens_BT)
    logits_BTV, _ = Transformer(model).apply({"params": params}, seen_BT, segments_BT)
    targets_BTV = jax.nn.one_hot(tokens_BT, model.vocab_size, dtype=logits_BTV.dtype)
    return optax.softmax_cross_entropy(logits_BTV, targets_BTV)
