"""The multi-head attention block: partition into heads, attend, gate, concatenate, project.

Dimension key: B batch, T query position, S key position, D d_model, H head, K head width (d_k).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mha.kernels import dispatch, reference


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), without biases and with an explicit head axis.

    Weights are w_q, w_k, w_v of shape (D, H, K) and w_o of shape (H, K, D). Each begins as one matrix over all heads,
    cut into heads, so neither its values nor the variance of what it computes depend on the number of heads.

    Attributes:
      num_heads: H.
      d_k: K, the width of a head; H*K may differ from D.
      causal: whether a position sees only itself and earlier ones.
      attention: path of `mha.kernels.dispatch`, `auto` to let it choose.
      dtype: dtype of the matmuls; weights are kept in promote_types(dtype, float32).
      out_scale: initial scale of w_o, for a residual stream of many blocks.
      logit_scale: what multiplies query . key. `sqrt`: 1/sqrt(d_k). `inverse`: 1/d_k (Yang et al. 2022, definition
        4.1). `learned`: 1/sqrt(d_k) times a learned factor a head, 1 at first. `qk_norm`: 1/sqrt(d_k) after an RMSNorm
        of query and key (Henry et al. 2020), over the features of all heads: one a head would leave a sign at d_k=1.
    """

    num_heads: int
    d_k: int
    causal: bool = True
    attention: str = "auto"
    dtype: jnp.dtype = jnp.float32
    out_scale: float = 1.0
    logit_scale: str = "sqrt"

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array | None = None,
        gate_H: jax.Array | None = None,
        want_weights: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Attends within `x_BTD`.

        Args:
          x_BTD: inputs (B, T, D).
          segments_BT: int (B, T); a token sees its own segment only, and segment 0 is padding. None: one segment.
          gate_H: (H,), multiplies each head's output before the projection: 1 as trained, 0 removed. None: all 1.
          want_weights: also return the attention weights, computed by the reference path.

        Returns:
          The block's output (B, T, D), and a dict with `heads` (B, T, H, K), each head's output before its gate, and
          `weights` (B, H, T, S) if asked for.
        """
        d_model = x_BTD.shape[-1]
        heads = (self.num_heads, self.d_k)
        kept = jnp.promote_types(self.dtype, jnp.float32)
        w_q_DHK = self.param("w_q", _initial, (d_model, *heads), 1, kept)
        w_k_DHK = self.param("w_k", _initial, (d_model, *heads), 1, kept)
        w_v_DHK = self.param("w_v", _initial, (d_model, *heads), 1, kept)
        w_o_HKD = self.param("w_o", _initial, (*heads, d_model), 2, kept, self.out_scale)

        x_BTD = x_BTD.astype(self.dtype)
        q_BTHK, k_BSHK, v_BSHK = (
            jnp.einsum("BTD,DHK->BTHK", x_BTD, w_DHK.astype(self.dtype)) for w_DHK in (w_q_DHK, w_k_DHK, w_v_DHK)
        )
        if self.logit_scale == "learned":
            factor_H = self.param("logit_scale", nn.initializers.ones, (self.num_heads,), kept)
            q_BTHK = q_BTHK * factor_H.astype(self.dtype)[None, None, :, None]
        if self.logit_scale == "qk_norm":
            q_BTHK = self._normed(q_BTHK, "norm_q", kept)
            k_BSHK = self._normed(k_BSHK, "norm_k", kept)
        scale = 1 / self.d_k if self.logit_scale == "inverse" else self.d_k**-0.5
        mask = dict(scale=scale, causal=self.causal, segments_BT=segments_BT)
        out_BTHK = dispatch.attend(q_BTHK, k_BSHK, v_BSHK, **mask, path=self.attention)
        seen = {"heads": out_BTHK}
        if want_weights:
            seen["weights"] = reference.weights(q_BTHK, k_BSHK, **mask)
        if gate_H is not None:
            out_BTHK = out_BTHK * gate_H.astype(self.dtype)[None, None, :, None]
        return jnp.einsum("BTHK,HKD->BTD", out_BTHK, w_o_HKD.astype(self.dtype)), seen

    def _normed(self, x_BTHK: jax.Array, name: str, kept) -> jax.Array:
        """RMSNorm over the features of all heads."""
        flat = x_BTHK.reshape(*x_BTHK.shape[:2], -1)
        return nn.RMSNorm(param_dtype=kept, name=name)(flat).astype(self.dtype).reshape(x_BTHK.shape)


def _initial(key: jax.Array, shape: tuple[int, ...], num_in: int, dtype, scale: float = 1.0) -> jax.Array:
    """A linear map from the first `num_in` axes to the others, of variance scale^2 / size of those."""
    matrix = (math.prod(shape[:num_in]), math.prod(shape[num_in:]))
    return scale * nn.initializers.lecun_normal()(key, matrix, dtype).reshape(shape)
