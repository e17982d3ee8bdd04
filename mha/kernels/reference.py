"""Plain softmax attention: the oracle that every fast path is held to, in float64 as well.

Dimension key: B batch, T query position, S key position, H head, K head width.
"""

import jax
import jax.numpy as jnp


def visible(segments_BT: jax.Array | None, length: int, causal: bool) -> jax.Array:
    """Which key each query may see: bool (B or 1, T, S).

    A key is visible when it lies in the query's segment, is no padding (segment 0) and, if `causal`, is not later.
    """
    see_BTS = jnp.ones((1, length, length), bool)
    if causal:
        see_BTS = jnp.tril(see_BTS)
    if segments_BT is not None:
        same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
        see_BTS = see_BTS & same_BTS & (segments_BT != 0)[:, :, None]
    return see_BTS


def weights(q_BTHK, k_BSHK, *, scale: float, causal: bool, segments_BT=None) -> jax.Array:
    """Attention weights (B, H, T, S): softmax_S(scale q.k) (Vaswani et al. 2017, eq. 1), rows of zeros where nothing
    is visible. Logits and softmax in promote_types(dtype, float32)."""
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    logits_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=wide) * scale
    see_BHTS = visible(segments_BT, q_BTHK.shape[1], causal)[:, None]
    top_BHT1 = jnp.max(logits_BHTS, axis=-1, keepdims=True, where=see_BHTS, initial=jnp.finfo(wide).min)
    exp_BHTS = jnp.where(see_BHTS, jnp.exp(jnp.where(see_BHTS, logits_BHTS - jax.lax.stop_gradient(top_BHT1), 0)), 0)
    total_BHT1 = jnp.sum(exp_BHTS, axis=-1, keepdims=True)
    return exp_BHTS / jnp.where(total_BHT1 == 0, 1, total_BHT1)


def attend(q_BTHK, k_BSHK, v_BSHK, *, scale: float, causal: bool, segments_BT=None) -> jax.Array:
    """Heads' outputs (B, T, H, K) before the output projection, in the dtype of `v_BSHK`."""
    weights_BHTS = weights(q_BTHK, k_BSHK, scale=scale, causal=causal, segments_BT=segments_BT)
    return jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS.astype(v_BSHK.dtype), v_BSHK)
