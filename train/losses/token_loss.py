"""The loss of each next token, in training and in evaluation.

Dimension key: B batch, T position, V vocabulary.
"""

import jax
import jax.numpy as jnp
import optax

from mha.transformer import ModelConfig, Transformer


def segments(tokens_BT: jax.Array, bos: int) -> jax.Array:
    """Document numbers from 1 within each packed window; a document begins at its BOS."""
    return 1 + jnp.cumsum(tokens_BT == bos, axis=1, dtype=jnp.int32)


def token_losses(model: ModelConfig, params: dict, tokens_BT1: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """Negative log-likelihood in nats of each next token: (B, T) for `tokens_BT1` of T + 1 tokens a row."""
    logits_BTV, _ = Transformer(model).apply({"params": params}, tokens_BT1[:, :-1], segments_BT)
    # One-hot targets fuse into the softmax; a gather, and its scatter backward, took a quarter of a step on CPU.
    targets_BTV = jax.nn.one_hot(tokens_BT1[:, 1:], model.vocab_size, dtype=logits_BTV.dtype)
    return optax.softmax_cross_entropy(logits_BTV, targets_BTV)
