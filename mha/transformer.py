"""The Transformer that every cell trains and every evaluation restores: one definition.

Dimension key: B batch, T position, D d_model, F feed-forward, V vocabulary, L layer, H head.
"""

import collections
import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mha.attention import MultiHeadAttention
from mha.gelu import gelu
from mha.linear import Linear


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of a model; `d_ff` has one entry a layer, since one width for all cannot always meet a budget."""

    vocab_size: int
    seq_len: int
    d_model: int
    num_heads: int
    d_k: int
    d_ff: tuple[int, ...]
    causal: bool = True
    attention: str = "auto"
    dtype: str = "float32"
    logit_scale: str = "sqrt"
    remat: str = "none"  # what the backward pass recomputes of a block; a key of RECOMPUTED
    scan_layers: bool = False  # neighbours of one width in a loop, compiled once; the parameters are the same

    @property
    def num_layers(self) -> int:
        return len(self.d_ff)


# Activation recomputation (Chen et al. 2016): what a block keeps for its backward pass.
RECOMPUTED = {
    "none": None,  # keeps all
    "block": jax.checkpoint_policies.nothing_saveable,  # its input alone
    "elementwise": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # and what its linear maps gave
}


class Block(nn.Module):
    """Pre-norm attention and feed-forward (GELU) sublayers, both without biases.

    What each adds to the residual stream begins 1/sqrt(2 layers) as large (Radford et al. 2019, section 2.3).
    """

    config: ModelConfig
    d_ff: int

    @nn.compact
    def __call__(self, x_BTD, segments_BT, gate_H, want_weights):
        config = self.config
        dtype = jnp.dtype(config.dtype)
        kept = jnp.promote_types(dtype, jnp.float32)
        scale = (2 * config.num_layers) ** -0.5
        attention = MultiHeadAttention(
            config.num_heads,
            config.d_k,
            config.causal,
            config.attention,
            dtype,
            out_scale=scale,
            logit_scale=config.logit_scale,
            name="attention",
        )
        normed_BTD = nn.RMSNorm(param_dtype=kept, name="norm_attention")(x_BTD)
        delta_BTD, seen = attention(normed_BTD, segments_BT, gate_H, want_weights)
        x_BTD = x_BTD + delta_BTD

        normed_BTD = nn.RMSNorm(param_dtype=kept, name="norm_mlp")(x_BTD)
        hidden_BTF = gelu(Linear(self.d_ff, dtype, name="mlp_in")(normed_BTD))
        initial = nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
        return x_BTD + Linear(config.d_model, dtype, initial, name="mlp_out")(hidden_BTF), seen


class Transformer(nn.Module):
    """Pre-norm language model with learned positions (RoPE cannot exist at d_k = 1, Su et al. 2021 rotate pairs)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        gates_LH: jax.Array | None = None,
        want_weights: bool = False,
    ) -> tuple[jax.Array, dict]:
        """Next-token logits.

        Args:
          tokens_BT: int token ids (B, T), T at most `config.seq_len`.
          segments_BT: int (B, T), non-decreasing document numbers from 1 in a packed window, 0 for padding. Documents
            neither see each other nor shift each other's positions. None: one document a row.
          gates_LH: (L, H) multipliers of the heads' outputs, 1 as trained, 0 removed. None: all 1.
          want_weights: also return attention weights.

        Returns:
          Logits (B, T, V) in promote_types(dtype, float32), and a dict of intermediates with one entry a layer:
          `residual` (B, T, D) entering each block and leaving the last (L + 1 entries), `heads` (B, T, H, K) before
          their gates, and `weights` (B, H, T, T) if asked for.

        Raises:
          ValueError: T exceeds the learned positions, or the gates' shape is not (L, H).
        """
        config = self.config
        length = tokens_BT.shape[1]
        if length > config.seq_len:
            raise ValueError(
                f"T={length} exceeds the {config.seq_len} learned positions; cut the input or train with a larger "
                f"data.seq_len."
            )
        wanted = (config.num_layers, config.num_heads)
        if gates_LH is not None and gates_LH.shape != wanted:
            raise ValueError(f"gates have shape {gates_LH.shape}; this model takes (layers, heads) = {wanted}.")
        dtype = jnp.dtype(config.dtype)
        kept = jnp.promote_types(dtype, jnp.float32)
        embed = dict(features=config.d_model, dtype=dtype, param_dtype=kept)
        positions_BT = _positions(segments_BT, length)
        x_BTD = nn.Embed(config.vocab_size, name="embed", **embed)(tokens_BT)
        x_BTD = x_BTD + nn.Embed(config.seq_len, name="positions", **embed)(positions_BT)
        out: dict[str, list] = {"residual": [x_BTD], "heads": [], "weights": []}
        for layers in _alike(config):
            scanned = len(layers) > 1 and config.scan_layers and not self.is_initializing()
            blocks = self._scan if scanned else self._unroll
            x_BTD, seen = blocks(layers, x_BTD, segments_BT, gates_LH, want_weights)
            for name, values in seen.items():
                out[name] += list(values)
        x_BTD = nn.RMSNorm(param_dtype=kept, name="norm_final")(x_BTD)
        return Linear(config.vocab_size, dtype, name="unembed")(x_BTD).astype(kept), out

    def _unroll(self, layers, x_BTD, segments_BT, gates_LH, want_weights) -> tuple[jax.Array, dict]:
        """The blocks of `layers` one after another: the residual after the last, and by name a list of what is
        returned of each."""
        out: dict[str, list] = collections.defaultdict(list)
        for layer in layers:
            block = _block(self.config)(self.config, self.config.d_ff[layer], name=f"block_{layer}")
            x_BTD, seen = block(x_BTD, segments_BT, None if gates_LH is None else gates_LH[layer], want_weights)
            for name, value in {"residual": x_BTD, **seen}.items():
                out[name].append(value)
        return x_BTD, out

    def _scan(self, layers, x_BTD, segments_BT, gates_LH, want_weights) -> tuple[jax.Array, dict]:
        """As `_unroll`, in a loop over the layers' stacked parameters; by name an array, the layer in front."""
        block = _block(self.config)(self.config, self.config.d_ff[layers[0]], parent=None)
        params = [self.variables["params"][f"block_{layer}"] for layer in layers]
        gates_LH = None if gates_LH is None else gates_LH[layers[0] : layers[-1] + 1]

        def one(x_BTD, given):
            params, gate_H = given
            x_BTD, seen = block.apply({"params": params}, x_BTD, segments_BT, gate_H, want_weights)
            return x_BTD, {"residual": x_BTD, **seen}

        return jax.lax.scan(one, x_BTD, (jax.tree.map(lambda *each: jnp.stack(each), *params), gates_LH))


def _alike(config: ModelConfig) -> list[list[int]]:
    """Runs of neighbouring layers of one d_ff."""
    runs = itertools.groupby(range(config.num_layers), key=lambda layer: config.d_ff[layer])
    return [list(layers) for _, layers in runs]


def _block(config: ModelConfig) -> type[nn.Module]:
    recomputed = RECOMPUTED[config.remat]
    return Block if recomputed is None else nn.remat(Block, static_argnums=(4,), policy=recomputed)


def _positions(segments_BT: jax.Array | None, length: int) -> jax.Array:
    """Each token's index within its own segment: (1, T) without segments, else (B, T)."""
    index_1T = jnp.arange(length)[None]
    if segments_BT is None:
        return index_1T
    starts_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return index_1T - jax.lax.cummax(jnp.where(starts_BT, index_1T, 0), axis=1)
