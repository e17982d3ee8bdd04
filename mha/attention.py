"""The multi-head attention block: partition into heads, attend, edit, concatenate, project.

Dimension key: B batch, T query position, S key position, D d_model, H head, N chosen head, K head width (d_k).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mha.edits import Addition, LayerEdits
from mha.kernels import dispatch


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
        edits: LayerEdits | None = None,
        want_queries: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Attends within `x_BTD`.

        Args:
          x_BTD: inputs (B, T, D).
          segments_BT: int (B, T); a token sees its own segment only, and segment 0 is padding. None: one segment.
          edits: gates and fills of the heads' outputs; the `x` of an addition is here what its heads read in place of
            `x_BTD`. None: as trained.
          want_queries: also return queries, keys and values, which with `logit_factor` give the attention weights.

        Returns:
          The block's output (B, T, D), and a dict with `heads` (B, T, H, K), each head's output before its gate, and
          `query`, `key` and `value` (B, T, H, K) if asked for, as the attention path takes them.
        """
        d_model = x_BTD.shape[-1]
        heads = (self.num_heads, self.d_k)
        kept = jnp.promote_types(self.dtype, jnp.float32)
        w_q_DHK, w_k_DHK, w_v_DHK = (
            self.param(name, _initial, (d_model, *heads), 1, kept) for name in ("w_q", "w_k", "w_v")
        )
        w_o_HKD = self.param("w_o", _initial, (*heads, d_model), 2, kept, self.out_scale)

        x_BTD = x_BTD.astype(self.dtype)
        q_BTHK, k_BSHK, v_BSHK = (
            jnp.einsum("BTD,DHK->BTHK", x_BTD, w_DHK.astype(self.dtype)) for w_DHK in (w_q_DHK, w_k_DHK, w_v_DHK)
        )
        norm_q = norm_k = None
        if self.logit_scale == "qk_norm":
            norm_q, norm_k = self._norm_of_heads("norm_q", kept), self._norm_of_heads("norm_k", kept)
            q_BTHK, k_BSHK = norm_q(q_BTHK), norm_k(k_BSHK)
        if edits is not None:
            q_BTHK = self._reread(q_BTHK, edits.query, w_q_DHK, norm_q)
            k_BSHK = self._reread(k_BSHK, edits.key, w_k_DHK, norm_k)
            v_BSHK = self._reread(v_BSHK, edits.value, w_v_DHK)
        if self.logit_scale == "learned":
            factor_H = self.param("logit_scale", nn.initializers.ones, (self.num_heads,), kept)
            q_BTHK = q_BTHK * factor_H.astype(self.dtype)[None, None, :, None]
        mask = dict(scale=logit_factor(self.logit_scale, self.d_k), causal=self.causal, segments_BT=segments_BT)
        out_BTHK = dispatch.attend(q_BTHK, k_BSHK, v_BSHK, **mask, path=self.attention)
        seen = {"heads": out_BTHK}
        if want_queries:
            seen |= {"query": q_BTHK, "key": k_BSHK, "value": v_BSHK}
        if edits is not None:
            out_BTHK = edits.gated(out_BTHK)
        return jnp.einsum("BTHK,HKD->BTD", out_BTHK, w_o_HKD.astype(self.dtype)), seen

    def _norm_of_heads(self, name: str, kept) -> Callable[[jax.Array], jax.Array]:
        """RMSNorm over the features of all heads, the last two axes."""
        norm = nn.RMSNorm(param_dtype=kept, name=name)
        return lambda x: norm(x.reshape(*x.shape[:-2], -1)).astype(self.dtype).reshape(x.shape)

    def _reread(self, x_BTHK: jax.Array, own: Addition | None, w_DHK: jax.Array, norm: Callable | None = None):
        """`x_BTHK`, but for the heads of `own`, which compute theirs from what they read."""
        if own is None:
            return x_BTHK
        heads_N = jnp.arange(self.num_heads) if own.heads is None else jnp.asarray(own.heads)
        read, w_DHK = own.x.astype(self.dtype), w_DHK.astype(self.dtype)
        if read.ndim == 3:
            found_BTHK = jnp.einsum("BTD,DHK->BTHK", read, w_DHK)
            found_BTNK = jnp.take(found_BTHK if norm is None else norm(found_BTHK), heads_N, axis=2)
        elif norm is None:
            found_BTNK = jnp.einsum("BTND,DNK->BTNK", read, jnp.take(w_DHK, heads_N, axis=1))
        else:
            found_BTNHK = norm(jnp.einsum("BTND,DHK->BTNHK", read, w_DHK))
            found_BTNK = found_BTNHK.at[:, :, jnp.arange(heads_N.size), heads_N].get(mode="fill")
        return x_BTHK.at[:, :, heads_N].set(found_BTNK, mode="clip")  # a number that is no head took NaN: let it show


def logit_factor(logit_scale: str, d_k: int) -> float:
    """What multiplies query . key under `logit_scale`, beside what a model learns."""
    return 1 / d_k if logit_scale == "inverse" else d_k**-0.5


def _initial(key: jax.Array, shape: tuple[int, ...], num_in: int, dtype, scale: float = 1.0) -> jax.Array:
    """A linear map from the first `num_in` axes to the others, of variance scale^2 / size of those."""
    matrix = (math.prod(shape[:num_in]), math.prod(shape[num_in:]))
    return scale * nn.initializers.lecun_normal()(key, matrix, dtype).reshape(shape)
