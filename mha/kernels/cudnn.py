"""cuDNN's flash attention on NVIDIA GPUs, made to serve any d_k up to 128.

Dimension key: B batch, T query position, S key position, H head, K head width.
"""

import jax
import jax.numpy as jnp


def attend(q_BTHK, k_BSHK, v_BSHK, segments_BT, scale: float, causal: bool) -> jax.Array:
    """Attention outputs (B, T, H, K) in bfloat16; arguments as in `reference.attend`.

    cuDNN takes widths that are multiples of 8: zeros appended to query, key and value change no logit as long as the
    scale is the true one. Segments enter as a mask, which it reads as a (B, 1, T, S) bias. It gives a row that sees
    nothing the mean of all values, so padding is left to see padding here, and its outputs are zeroed.
    """
    d_k = q_BTHK.shape[-1]
    widen = ((0, 0),) * 3 + ((0, -d_k % 8),)
    q_BTHK, k_BSHK, v_BSHK = (jnp.pad(x, widen) for x in (q_BTHK, k_BSHK, v_BSHK))
    mask_B1TS = None
    if segments_BT is not None:
        mask_B1TS = (segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]
    out_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, mask=mask_B1TS, is_causal=causal, scale=scale, implementation="cudnn"
    )[..., :d_k]
    if segments_BT is None:
        return out_BTHK
    return jnp.where((segments_BT != 0)[:, :, None, None], out_BTHK, 0)
