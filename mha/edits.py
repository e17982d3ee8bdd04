"""Interventions on heads, all of them before the output projection: gates, fills, and what single heads read.

Dimension key: L layer, B batch, T position, H head, N chosen head, D d_model, K head width (d_k).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Addition(NamedTuple):
    """What is added to the residual stream that chosen heads of one layer read, before the layer's RMSNorm.

    Attributes:
      x: (B, T, D), the same for all of the chosen heads, or (B, T, N, D), one for each.
      heads: int (N,), the chosen heads, each once. Traced under jit, so one program serves any choice of N heads; a
        number that is no head then gives NaN. None: all heads.
    """

    x: jax.Array
    heads: jax.Array | Sequence[int] | None = None


class LayerEdits(NamedTuple):
    """The part of `Edits` that one layer takes: `gate` (H,) or (B, H), the others as there."""

    gate: jax.Array | None = None
    fill: jax.Array | None = None
    query: Addition | None = None
    key: Addition | None = None
    value: Addition | None = None

    def read(self, x_BTD: jax.Array, norm: Callable[[jax.Array], jax.Array]) -> "LayerEdits":
        """Self, with each addition's `x` replaced by what its heads read: `norm` of the edited residual stream."""

        read = {}
        for name in ("query", "key", "value"):
            addition = getattr(self, name)
            if addition is not None:
                x = jnp.asarray(addition.x, x_BTD.dtype)
                read[name] = addition._replace(x=norm((x_BTD if x.ndim == 3 else x_BTD[:, :, None]) + x))
        return self._replace(**read)

    def gated(self, z_BTHK: jax.Array) -> jax.Array:
        """g z + (1 - g) fill, in the dtype of the heads' outputs `z_BTHK`."""
        if self.gate is None:
            return z_BTHK
        dtype, gate_BTHK = z_BTHK.dtype, jnp.atleast_2d(self.gate)[:, None, :, None]
        out_BTHK = gate_BTHK.astype(dtype) * z_BTHK
        if self.fill is None:
            return out_BTHK
        return out_BTHK + (1 - gate_BTHK).astype(dtype) * jnp.broadcast_to(self.fill, z_BTHK.shape).astype(dtype)


class Edits(NamedTuple):
    """Interventions on a forward pass; all arrays are leaves, so Edits may be traced, batched and differentiated.

    A head's output z becomes g z + (1 - g) fill before the output projection. Zero ablation has no fill, mean ablation
    a mean, resample ablation another document's outputs, optimal ablation (Li and Janson 2024) a learned vector.

    An addition changes what chosen heads read, and those heads compute their query (key, value) again from it. With
    what an earlier head writes for another document, less what it writes for this one, that is exact path patching
    (Wang et al. 2022); after the RMSNorm it would not be. What the layer adds its output to stays as it is.

    Under `qk_norm`, whose RMSNorm runs over the features of all heads, a head that reads another stream has the query
    that it would have if all heads read that stream: it depends on no other addition, and the other heads keep theirs.
    An `x` of shape (B, T, N, D) then costs N projections of all heads.

    Attributes:
      gates: (L, H), or (L, B, H) for gates of each document; 1 as trained, 0 removed. None: all 1.
      fill: one entry a layer, an array or a sequence, each broadcast to (B, T, H, K) by NumPy's rules; in a sequence
        None is zero. None: zero.
      query, key, value: by layer, from 0, the addition to what heads there read for theirs. None: none.
    """

    gates: jax.Array | None = None
    fill: jax.Array | Sequence[jax.Array | None] | None = None
    query: Mapping[int, Addition] | None = None
    key: Mapping[int, Addition] | None = None
    value: Mapping[int, Addition] | None = None

    def of_layer(self, layer: int) -> LayerEdits:
        parts = (self.query, self.key, self.value)
        return LayerEdits(
            None if self.gates is None else jnp.asarray(self.gates)[layer],
            None if self.fill is None else self.fill[layer],
            *(None if part is None else part.get(layer) for part in parts),
        )

    def check(self, *, layers: int, batch: int, length: int, heads: int, d_k: int, d_model: int) -> None:
        """Raises ValueError, with what was given and what the model takes, where they disagree."""
        if self.gates is not None and jnp.shape(self.gates) not in ((layers, heads), (layers, batch, heads)):
            raise ValueError(
                f"gates have shape {jnp.shape(self.gates)}; this model takes (layers, heads) = {(layers, heads)}, or "
                f"(layers, batch, heads) = {(layers, batch, heads)}."
            )
        if self.fill is not None:
            self._check_fill(layers, (batch, length, heads, d_k))
        parts = {"query": self.query, "key": self.key, "value": self.value}
        additions = [(name, *pair) for name, part in parts.items() for pair in (part or {}).items()]
        for name, layer, addition in additions:
            if layer not in range(layers):
                raise ValueError(f"an addition is to the {name} of layer {layer}; layers are 0 ... {layers - 1}.")
            chosen = _chosen(addition, f"the {name} of layer {layer}", heads)
            shapes = (batch, length, d_model), (batch, length, chosen, d_model)
            if (shape := jnp.shape(addition.x)) not in shapes:
                raise ValueError(
                    f"the addition to the {name} of layer {layer} has shape {shape}; for {chosen} heads it must be "
                    f"(batch, length, d_model) = {shapes[0]}, or (batch, length, heads, d_model) = {shapes[1]}."
                )

    def _check_fill(self, layers: int, wanted: tuple[int, ...]) -> None:
        if self.gates is None:
            raise ValueError(
                "a fill enters where a gate is below 1, and there are no gates; give gates, 0 where the fill takes the "
                "output's place."
            )
        entries = len(self.fill) if isinstance(self.fill, (list, tuple)) else (*jnp.shape(self.fill), 0)[0]
        if entries != layers:
            raise ValueError(f"fill has {entries} entries; this model takes one for each of its {layers} layers.")
        for layer in range(layers):
            shape = () if self.fill[layer] is None else jnp.shape(self.fill[layer])
            if len(shape) > len(wanted) or not all(
                n in (1, size) for n, size in zip(shape[::-1], wanted[::-1], strict=False)
            ):
                raise ValueError(
                    f"the fill of layer {layer} has shape {shape}; it must broadcast to (batch, length, heads, d_k) = "
                    f"{wanted}."
                )


def _chosen(addition: Addition, what: str, heads: int) -> int:
    """How many heads an addition to `what` chooses out of `heads`."""
    if addition.heads is None:
        return heads
    chosen = jnp.asarray(addition.heads)
    if chosen.ndim != 1 or not jnp.issubdtype(chosen.dtype, jnp.integer):
        raise ValueError(
            f"the heads of the addition to {what} have shape {chosen.shape} and dtype {chosen.dtype}; they must be "
            f"integers of shape (heads,)."
        )
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(addition.heads)):
        known = np.asarray(addition.heads)
        if len(set(known.tolist())) < known.size or any(head not in range(heads) for head in known.tolist()):
            raise ValueError(
                f"the addition to {what} chooses heads {known.tolist()}; choose among 0 ... {heads - 1}, each once."
            )
    return chosen.shape[0]
