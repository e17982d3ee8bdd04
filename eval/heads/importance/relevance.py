"""Layer-wise relevance propagation to heads (Voita et al. 2019, section 4.1 and appendix A).

Relevance of a neuron v goes to each input u in the share w_uv u / sum_u' w_u'v u', and through nonlinearities as it is.
In a network without biases that is input times gradient, with each nonlinearity a constant factor: GELU's output over
its input, RMSNorm's scale. Voita's rule for a product divides by the sum of its factors, which may be near 0; attention
weights are constants here (Ali et al. 2022, equation 9), so that all relevance flows through the values.

Dimension key: B window, T position, S key position, D d_model, F feed-forward, L layer, H head, K head width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eval.heads.importance import engine
from mha import suffix
from mha.attention import logit_factor
from mha.gelu import gelu
from mha.kernels import reference
from mha.transformer import ModelConfig, Transformer
from train.data.gold import EvalWindows

EPSILON = 1e-6  # of flax.linen.RMSNorm


@functools.partial(jax.jit, static_argnames="model")
def of_batch(model: ModelConfig, params: dict, columns: tuple):
    """Summed relevance (L, H) of each head for the most likely token at each counted position; of what enters the first
    block, a number; and the sum of those logits, which conservation makes equal to it."""
    windows = engine.Windows(*columns)
    seen = Transformer(model).apply({"params": params}, windows.tokens_BT, windows.segments_BT, want_queries=True)[1]
    mask = dict(causal=model.causal, segments_BT=windows.segments_BT)
    scale = logit_factor(model.logit_scale, model.d_k)
    a = [reference.weights(q, k, scale=scale, **mask) for q, k in zip(seen["query"], seen["key"], strict=True)]
    out_BTV = suffix.logits(model, params, seen["residual"][-1])
    most_BTV = jax.nn.one_hot(jnp.argmax(out_BTV, axis=-1), model.vocab_size) * windows.counted_BT[..., None]

    def summed(x_BTD, added):
        """Sum of the chosen logits, linear in the stream and in what is added to the heads' outputs."""
        for layer in range(model.num_layers):
            own = params[f"block_{layer}"]
            read_BTD = seen["residual"][layer]
            normed_BTD = x_BTD * _factor(read_BTD, own["norm_attention"])
            v_BSHK = jnp.einsum("BSD,DHK->BSHK", normed_BTD, own["attention"]["w_v"])
            z_BTHK = jnp.einsum("BHTS,BSHK->BTHK", a[layer], v_BSHK) + added[layer]
            x_BTD = x_BTD + jnp.einsum("BTHK,HKD->BTD", z_BTHK, own["attention"]["w_o"])
            middle_BTD = suffix.attended(model, params, layer, read_BTD, seen["heads"][layer])
            factor_BTD = _factor(middle_BTD, own["norm_mlp"])
            true_BTF = (middle_BTD * factor_BTD) @ own["mlp_in"]["kernel"]
            gate_BTF = gelu(true_BTF) / jnp.where(true_BTF == 0, 1, true_BTF)
            x_BTD = x_BTD + (x_BTD * factor_BTD @ own["mlp_in"]["kernel"] * gate_BTF) @ own["mlp_out"]["kernel"]
        normed_BTD = x_BTD * _factor(seen["residual"][-1], params["norm_final"])
        return jnp.sum(normed_BTD @ params["unembed"]["kernel"] * most_BTV)

    zeros = [jnp.zeros_like(z) for z in seen["heads"]]
    first, slopes = jax.grad(summed, argnums=(0, 1))(seen["residual"][0], zeros)
    heads_LH = jnp.stack([jnp.sum(z * slope, (0, 1, 3)) for z, slope in zip(seen["heads"], slopes, strict=True)])
    return heads_LH, jnp.sum(first * seen["residual"][0]), jnp.sum(out_BTV * most_BTV)


def _factor(x_BTD: jax.Array, norm: dict) -> jax.Array:
    """What RMSNorm multiplies `x_BTD` by."""
    return jax.lax.rsqrt(jnp.mean(jnp.square(x_BTD), axis=-1, keepdims=True) + EPSILON) * norm["scale"][None, None]


def relevance(model: ModelConfig, params: dict, windows: EvalWindows) -> np.ndarray:
    """Relevance (L, H) of each head, normalised over the heads of its layer, whose absolute values sum to 1."""
    batches = engine.batches(windows, engine.windows_of(model))
    total_LH = np.asarray(sum(of_batch(model, params, columns)[0] for _, columns in batches), np.float64)
    whole = np.abs(total_LH).sum(axis=1, keepdims=True)
    return total_LH / np.where(whole > 0, whole, 1)
