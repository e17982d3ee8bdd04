"""The block against textbook attention and Flax's module, in float64, forward and gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.attention import MultiHeadAttention, logit_factor
from mha.edits import LayerEdits
from mha.kernels import reference

B, T, D = 2, 7, 12
HEADS = [1, 2, 3, 4, 6, 12]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def block(num_heads, d_k=None, **options):
    return MultiHeadAttention(num_heads, d_k or D // num_heads, attention="reference", dtype=jnp.float64, **options)


def inputs(seed, shape=(B, T, D)):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def params_of(module, seed=0):
    return module.init(jax.random.key(seed), inputs(0))["params"]


def close(got, wanted, tolerance=1e-12):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def gradients(function, params, x):
    """Of a scalar that weighs every output differently, with respect to weights and inputs."""
    direction = inputs(99)
    return jax.jit(jax.grad(lambda params, x: jnp.sum(function(params, x) * direction), argnums=(0, 1)))(params, x)


def test_one_head_is_textbook_attention():
    module, x = block(1), inputs(1)
    params = params_of(module)

    def textbook(params, x):
        q, k, v = (x @ params[name][:, 0] for name in ("w_q", "w_k", "w_v"))
        logits = jnp.where(jnp.tril(jnp.ones((T, T), bool))[None], q @ k.swapaxes(1, 2) / jnp.sqrt(D), -jnp.inf)
        return jax.nn.softmax(logits, axis=-1) @ v @ params["w_o"][0]

    def ours(params, x):
        return module.apply({"params": params}, x)[0]

    close(ours(params, x), textbook(params, x))
    close(gradients(ours, params, x), gradients(textbook, params, x))


@pytest.mark.parametrize("num_heads", HEADS)
@pytest.mark.parametrize("causal", [True, False])
def test_every_h_equals_flax(num_heads, causal):
    module, x = block(num_heads, causal=causal), inputs(2)
    params = params_of(module, seed=num_heads)
    peer = nn.MultiHeadDotProductAttention(num_heads, dtype=jnp.float64, param_dtype=jnp.float64, use_bias=False)
    mask = nn.make_causal_mask(jnp.ones((B, T))) if causal else None
    names = {"query": "w_q", "key": "w_k", "value": "w_v", "out": "w_o"}

    def ours(params, x):
        return module.apply({"params": params}, x)[0]

    def flax(params, x):
        return peer.apply(
            {"params": {theirs: {"kernel": params[mine]} for theirs, mine in names.items()}}, x, mask=mask
        )

    close(ours(params, x), flax(params, x))
    gradients = [jax.grad(lambda p, x, f=f: jnp.sum(f(p, x) ** 3), argnums=(0, 1))(params, x) for f in (ours, flax)]
    close(*gradients)


@pytest.mark.parametrize("num_heads", [1, 3, 12])
@pytest.mark.parametrize("logit_scale", ["sqrt", "inverse", "learned", "qk_norm"])
def test_logit_scales_are_what_they_say(num_heads, logit_scale):
    """Against softmax attention written out, with scales and gains that are not what they begin with."""
    module, x, d_k = block(num_heads, logit_scale=logit_scale), inputs(11), D // num_heads
    params = params_of(module)
    bent = lambda w: w if w.ndim > 1 else 1 + 0.5 * jnp.cos(jnp.arange(w.size))  # noqa: E731
    params = jax.tree.map(bent, params)

    def normed(y, gain):
        flat = y.reshape(B, T, D)
        flat = flat / jnp.sqrt(jnp.mean(flat**2, axis=-1, keepdims=True) + 1e-6) * gain[None, None]
        return flat.reshape(y.shape)

    def written_out(params, x):
        q, k, v = (jnp.einsum("BTD,DHK->BHTK", x, params[name]) for name in ("w_q", "w_k", "w_v"))
        if logit_scale == "qk_norm":
            q, k = (
                normed(y.swapaxes(1, 2), params[name]["scale"]).swapaxes(1, 2)
                for y, name in ((q, "norm_q"), (k, "norm_k"))
            )
        logits = q @ k.swapaxes(2, 3) / (d_k if logit_scale == "inverse" else jnp.sqrt(d_k))
        if logit_scale == "learned":
            logits = logits * params["logit_scale"][None, :, None, None]
        logits = jnp.where(jnp.tril(jnp.ones((T, T), bool))[None, None], logits, -jnp.inf)
        return jnp.einsum("BHTK,HKD->BTD", jax.nn.softmax(logits, axis=-1) @ v, params["w_o"])

    def ours(params, x):
        return module.apply({"params": params}, x)[0]

    close(ours(params, x), written_out(params, x))
    found = gradients(ours, params, x)
    close(found, gradients(written_out, params, x), 1e-11)
    assert all(jnp.all(jnp.abs(leaf) > 0) for leaf in jax.tree.leaves(found[0]) if leaf.ndim == 1)
    plain = {name: params[name] for name in ("w_q", "w_k", "w_v", "w_o")}
    same = jnp.allclose(ours(params, x), block(num_heads).apply({"params": plain}, x)[0], atol=1e-6)
    assert same == (logit_scale == "sqrt" or (logit_scale == "inverse" and d_k == 1))


def test_causality_by_gradient():
    module = block(3)
    params = params_of(module)
    jacobian = jax.jacobian(lambda x: module.apply({"params": params}, x[None])[0][0])(inputs(3, (T, D)))
    reach = jnp.abs(jacobian).sum(axis=(1, 3))  # (T output, T input)
    assert jnp.all(jnp.triu(reach, 1) == 0)
    assert jnp.all(reach[jnp.tril_indices(T)] > 0)


def test_bidirectional_sees_everything():
    module = block(3, causal=False)
    params = params_of(module)
    jacobian = jax.jacobian(lambda x: module.apply({"params": params}, x[None])[0][0])(inputs(3, (T, D)))
    assert jnp.all(jnp.abs(jacobian).sum(axis=(1, 3)) > 0)


def test_permuting_heads_changes_nothing():
    module, x = block(4), inputs(4)
    params = params_of(module)
    order = jnp.array([2, 0, 3, 1])
    shuffled = {name: w[order] if name == "w_o" else w[:, order] for name, w in params.items()}
    close(module.apply({"params": shuffled}, x)[0], module.apply({"params": params}, x)[0])


@pytest.mark.parametrize("num_heads", [2, 12])
def test_gate_zero_equals_deleting_the_rows_of_w_o(num_heads):
    module, x = block(num_heads), inputs(5)
    params = params_of(module)
    gate = jnp.ones(num_heads).at[1].set(0.0)
    gated = module.apply({"params": params}, x, None, LayerEdits(gate))[0]
    deleted = {**params, "w_o": params["w_o"].at[1].set(0.0)}
    close(gated, module.apply({"params": deleted}, x)[0])
    whole = module.apply({"params": params}, x)[0]
    assert jnp.abs(gated - whole).max() > 1e-3
    close(module.apply({"params": params}, x, None, LayerEdits(jnp.ones(num_heads)))[0], whole)


@pytest.mark.parametrize("logit_scale", ("sqrt", "inverse", "learned", "qk_norm"))
def test_queries_and_keys_only_when_asked_for(logit_scale):
    """And with the logit factor they give the weights whose means of the values the heads' outputs are."""
    module, x = block(4, logit_scale=logit_scale), inputs(6)
    params = params_of(module)
    if logit_scale == "learned":
        params["logit_scale"] = jnp.arange(1.0, 5)
    _, seen = module.apply({"params": params}, x)
    assert set(seen) == {"heads"} and seen["heads"].shape == (B, T, 4, 3)
    _, seen = module.apply({"params": params}, x, want_queries=True)
    weights = reference.weights(seen["query"], seen["key"], scale=logit_factor(logit_scale, 3), causal=True)
    value = jnp.einsum("BSD,DHK->BSHK", x, params["w_v"])
    close(jnp.einsum("BHTS,BSHK->BTHK", weights, value), seen["heads"])


def test_initial_variance_does_not_depend_on_the_number_of_heads():
    width, x = 64, inputs(7, (8, 32, 64))
    variances, matrices = [], []
    for num_heads in (1, 2, 8, 32, 64):
        module = MultiHeadAttention(num_heads, width // num_heads, attention="reference", dtype=jnp.float64)
        params = jax.vmap(lambda seed: module.init(jax.random.key(seed), x)["params"])(jnp.arange(16))  # noqa: B023
        found = [jnp.var(jnp.einsum("BTD,RDHK->RBTHK", x, params[name])) for name in ("w_q", "w_k", "w_v")]
        found.append(jnp.var(jnp.einsum("BTHK,RHKD->RBTD", x.reshape(8, 32, num_heads, -1), params["w_o"])))
        variances.append(jnp.stack(found))
        matrices.append([params[name].reshape(16, width, width) for name in ("w_q", "w_k", "w_v", "w_o")])
    np.testing.assert_allclose(jnp.stack(variances), 1.0, rtol=0.1)
    for other in matrices[1:]:
        np.testing.assert_array_equal(other, matrices[0])


def test_wide_and_narrow_heads():
    for d_k in (1, 5, 16):
        out, _ = block(3, d_k).init_with_output(jax.random.key(0), inputs(8))[0]
        assert out.shape == (B, T, D) and jnp.all(jnp.isfinite(out))


def test_softmax_is_at_least_float32():
    module = MultiHeadAttention(2, 6, attention="reference", dtype=jnp.bfloat16)
    x = inputs(9).astype(jnp.bfloat16)
    params = module.init(jax.random.key(0), x)["params"]
    assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(params))
    out, seen = module.apply({"params": params}, x, want_queries=True)
    weights = reference.weights(seen["query"], seen["key"], scale=logit_factor("sqrt", 6), causal=True)
    assert out.dtype == seen["query"].dtype == jnp.bfloat16 and weights.dtype == jnp.float32
