"""The rest of a forward pass from inside the model: what a head's removal changes, and nothing before it.

Dimension key: B batch, T position, D d_model, H head, K head width (d_k), V vocabulary.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mha.edits import LayerEdits
from mha.gelu import gelu
from mha.linear import Linear
from mha.transformer import Block, ModelConfig


def attended(model: ModelConfig, params: dict, layer: int, x_BTD: jax.Array, z_BTHK: jax.Array) -> jax.Array:
    """The residual stream (B, T, D) behind the attention of `layer`, from what enters the layer and its heads' gated
    outputs."""
    w_o_HKD = params[f"block_{layer}"]["attention"]["w_o"].astype(model.dtype)
    return x_BTD + jnp.einsum("BTHK,HKD->BTD", z_BTHK, w_o_HKD)


def feed_forward(model: ModelConfig, params: dict, layer: int, x_BTD: jax.Array) -> jax.Array:
    """The residual stream (B, T, D) behind `layer`, from what leaves its attention."""
    own, dtype = params[f"block_{layer}"], jnp.dtype(model.dtype)
    normed_BTD = _norm(model, own["norm_mlp"], x_BTD)
    hidden_BTF = gelu(Linear(model.d_ff[layer], dtype).apply({"params": own["mlp_in"]}, normed_BTD))
    return x_BTD + Linear(model.d_model, dtype).apply({"params": own["mlp_out"]}, hidden_BTF)


def block(
    model: ModelConfig, params: dict, layer: int, x_BTD: jax.Array, segments_BT: jax.Array, edits: LayerEdits | None
) -> jax.Array:
    """The residual stream (B, T, D) behind `layer`, from what enters it."""
    own = {"params": params[f"block_{layer}"]}
    return Block(model, model.d_ff[layer]).apply(own, x_BTD, segments_BT, edits, False)[0]


def logits(model: ModelConfig, params: dict, x_BTD: jax.Array) -> jax.Array:
    """Next-token logits (B, T, V) from the residual stream behind the last layer."""
    dtype = jnp.dtype(model.dtype)
    normed_BTD = _norm(model, params["norm_final"], x_BTD)
    out_BTV = Linear(model.vocab_size, dtype).apply({"params": params["unembed"]}, normed_BTD)
    return out_BTV.astype(jnp.promote_types(dtype, jnp.float32))


def _norm(model: ModelConfig, own: dict, x_BTD: jax.Array) -> jax.Array:
    kept = jnp.promote_types(jnp.dtype(model.dtype), jnp.float32)
    return nn.RMSNorm(param_dtype=kept).apply({"params": own}, x_BTD)
