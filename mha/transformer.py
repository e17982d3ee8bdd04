"""The Transformer that every cell trains and every evaluation restores: one definition.

Dimension key: B batch, T position, D d_model, F feed-forward, V vocabulary, L layer, H head.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mha.attention import MultiHeadAttention, logit_factor
from mha.edits import Edits, LayerEdits
from mha.gelu import gelu
from mha.kernels import reference
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
    def __call__(self, x_BTD, segments_BT, edits: LayerEdits | None, want_queries: bool):
        config = self.config
        dtype = jnp.dtype(config.dtype)
        kept, scale = jnp.promote_types(dtype, jnp.float32), (2 * config.num_layers) ** -0.5
        paths = (config.num_heads, config.d_k, config.causal, config.attention, dtype, scale, config.logit_scale)
        attention = MultiHeadAttention(*paths, name="attention")
        norm = nn.RMSNorm(param_dtype=kept, name="norm_attention")
        normed_BTD = norm(x_BTD)
        edits = None if edits is None else edits.read(x_BTD, norm)
        delta_BTD, seen = attention(normed_BTD, segments_BT, edits, want_queries)
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
        edits: Edits | None = None,
        want_queries: bool = False,
    ) -> tuple[jax.Array, dict]:
        """Next-token logits.

        Args:
          tokens_BT: int token ids (B, T), T at most `config.seq_len`.
          segments_BT: int (B, T), non-decreasing document numbers from 1 in a packed window, 0 for padding. Documents
            neither see each other nor shift each other's positions. None: one document a row.
          edits: interventions on heads. None: as trained.
          want_queries: also return queries, keys and values; `weights_in_blocks` computes attention weights from them.

        Returns:
          Logits (B, T, V) in promote_types(dtype, float32), and a dict of intermediates with one entry a layer:
          `residual` (B, T, D) entering each block and leaving the last (L + 1 entries), `heads` (B, T, H, K) before
          their gates, and `query`, `key` and `value` (B, T, H, K) if asked for.

        Raises:
          ValueError: T exceeds the learned positions, or the edits are not of this model's shape.
        """
        config = self.config
        batch, length = tokens_BT.shape
        if length > config.seq_len:
            raise ValueError(
                f"T={length} exceeds the {config.seq_len} learned positions; cut the input or train with a larger "
                f"data.seq_len."
            )
        if edits is not None:
            widths = dict(heads=config.num_heads, d_k=config.d_k, d_model=config.d_model)
            edits.check(layers=config.num_layers, batch=batch, length=length, **widths)
        dtype = jnp.dtype(config.dtype)
        kept = jnp.promote_types(dtype, jnp.float32)
        embed = dict(features=config.d_model, dtype=dtype, param_dtype=kept)
        positions_BT = _positions(segments_BT, length)
        x_BTD = nn.Embed(config.vocab_size, name="embed", **embed)(tokens_BT)
        x_BTD = x_BTD + nn.Embed(config.seq_len, name="positions", **embed)(positions_BT)
        out: dict[str, list] = collections.defaultdict(list, residual=[x_BTD])
        for _, alike in itertools.groupby(range(config.num_layers), key=lambda layer: config.d_ff[layer]):
            layers = list(alike)  # neighbours of one width
            given = [None if edits is None else edits.of_layer(layer) for layer in layers]
            scanned = len(layers) > 1 and config.scan_layers and not self.is_initializing() and _stackable(given)
            x_BTD, seen = (self._scan if scanned else self._unroll)(layers, x_BTD, segments_BT, given, want_queries)
            for name, values in seen.items():
                out[name] += list(values)
        x_BTD = nn.RMSNorm(param_dtype=kept, name="norm_final")(x_BTD)
        return Linear(config.vocab_size, dtype, name="unembed")(x_BTD).astype(kept), dict(out)

    def _unroll(self, layers, x_BTD, segments_BT, edits, want_queries) -> tuple[jax.Array, dict]:
        """The blocks of `layers` one after another, each with its `edits`: the residual after the last, and by name a
        list of what is returned of each."""
        out: dict[str, list] = collections.defaultdict(list)
        for layer, given in zip(layers, edits, strict=True):
            block = _block(self.config)(self.config, self.config.d_ff[layer], name=f"block_{layer}")
            x_BTD, seen = block(x_BTD, segments_BT, given, want_queries)
            for name, value in {"residual": x_BTD, **seen}.items():
                out[name].append(value)
        return x_BTD, out

    def _scan(self, layers, x_BTD, segments_BT, edits, want_queries) -> tuple[jax.Array, dict]:
        """As `_unroll`, in a loop over the layers' stacked parameters; by name an array, the layer in front."""
        block = _block(self.config)(self.config, self.config.d_ff[layers[0]], parent=None)
        params = [self.variables["params"][f"block_{layer}"] for layer in layers]

        def one(x_BTD, given):
            params, edits = given
            x_BTD, seen = block.apply({"params": params}, x_BTD, segments_BT, edits, want_queries)
            return x_BTD, {"residual": x_BTD, **seen}

        stacked = [jax.tree.map(lambda *each: jnp.stack(each), *trees) for trees in (params, edits)]
        return jax.lax.scan(one, x_BTD, tuple(stacked))


def weights_in_blocks(
    config: ModelConfig,
    seen: dict,
    layer: int,
    segments_BT: jax.Array | None = None,
    heads: Sequence[int] | None = None,
    budget_bytes: int = 256 << 20,
) -> Iterator[tuple[slice, np.ndarray, jax.Array]]:
    """Attention weights of one layer, a block at a time, whatever attention path the forward pass took.

    Args:
      config: the model's.
      seen: intermediates of its forward pass with `want_queries`.
      layer: from 0.
      segments_BT: as in the forward pass.
      heads, budget_bytes: as for `reference.weights_in_blocks`, which says what is yielded.
    """
    query, key = seen["query"][layer], seen["key"][layer]
    mask = dict(scale=logit_factor(config.logit_scale, config.d_k), causal=config.causal, segments_BT=segments_BT)
    return reference.weights_in_blocks(query, key, **mask, heads=heads, budget_bytes=budget_bytes)


def _stackable(edits: list[LayerEdits | None]) -> bool:
    """Whether the layers' edits have one form, so that they can ride along a loop over layers."""
    return len({(jax.tree.structure(e), tuple(leaf.shape for leaf in jax.tree.leaves(e))) for e in edits}) == 1


def _block(config: ModelConfig) -> type[nn.Module]:
    policy = RECOMPUTED[config.remat]
    return nn.remat(Block, static_argnums=(4,), policy=policy) if policy else Block


def _positions(segments_BT: jax.Array | None, length: int) -> jax.Array:
    """Each token's index within its own segment: (1, T) without segments, else (B, T)."""
    index_1T = jnp.arange(length)[None]
    if segments_BT is None:
        return index_1T
    starts_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return index_1T - jax.lax.cummax(jnp.where(starts_BT, index_1T, 0), axis=1)
