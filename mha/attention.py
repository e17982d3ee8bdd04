"""The multi-head attention block: partition into heads, attend, gate, concatenate, project.

Dimension key: B batch, T query position, S key position, D d_model, H head, K head width (d_k).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mha.kernels import dispatch, reference


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), without biases and with an explicit head axis.

    Weights are w_q, w_k, w_v of shape (D, H, K) and w_o of shape (H, K, D). The initialiser takes its fans from D and
    from H*K together, so the variance of query, key, value and output does not depend on the number of heads.

    Attributes:
      num_heads: H.
      d_k: K, the width of a head; H*K may differ from D.
      causal: whether a position sees only itself and earlier ones.
      attention: path of `mha.kernels.dispatch`, `auto` to let it choose.
      dtype: dtype of the matmuls; weights are kept in promote_types(dtype, float32).
    """

    num_heads: int
    d_k: int
    causal: bool = True
    attention: str = "auto"
    dtype: jnp.dtype = jnp.float32

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
        into = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        outof = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
        w_q_DHK = self.param("w_q", into, (d_model, *heads), kept)
        w_k_DHK = self.param("w_k", into, (d_model, *heads), kept)
        w_v_DHK = self.param("w_v", into, (d_model, *heads), kept)
        w_o_HKD = self.param("w_o", outof, (*heads, d_model), kept)

        x_BTD = x_BTD.astype(self.dtype)
        q_BTHK, k_BSHK, v_BSHK = (
            jnp.einsum("BTD,DHK->BTHK", x_BTD, w_DHK.astype(self.dtype)) for w_DHK in (w_q_DHK, w_k_DHK, w_v_DHK)
        )
        mask = dict(scale=self.d_k**-0.5, causal=self.causal, segments_BT=segments_BT)
        out_BTHK = dispatch.attend(q_BTHK, k_BSHK, v_BSHK, **mask, path=self.attention)
        seen = {"heads": out_BTHK}
        if want_weights:
            seen["weights"] = reference.weights(q_BTHK, k_BSHK, **mask)
        if gate_H is not None:
            out_BTHK = out_BTHK * gate_H.astype(self.dtype)[:, None]
        return jnp.einsum("BTHK,HKD->BTD", out_BTHK, w_o_HKD.astype(self.dtype)), seen
