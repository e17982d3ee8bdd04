"""The linear map with its own gradients, against Flax's Dense in float64 and float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.linear import Linear


@pytest.mark.parametrize("shape, features", [((3, 5, 7), 4), ((2, 1), 6), ((8, 3), 1)])
def test_equals_a_dense_layer_forward_and_gradient(shape, features):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, kernel = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=(shape[-1], features)))
        d_out = jnp.asarray(rng.normal(size=(*shape[:-1], features)))
        found, pull = jax.vjp(lambda x, w: Linear(features, jnp.float64).apply({"params": {"kernel": w}}, x), x, kernel)
        dense = nn.Dense(features, use_bias=False, dtype=jnp.float64, param_dtype=jnp.float64)
        wanted, pull_dense = jax.vjp(lambda x, w: dense.apply({"params": {"kernel": w}}, x), x, kernel)
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        for ours, theirs in zip(pull(d_out), pull_dense(d_out), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_starts_as_a_dense_layer_does():
    x, key = jnp.ones((2, 16)), jax.random.key(3)
    ours = Linear(8, jnp.float32).init(key, x)["params"]
    theirs = nn.Dense(8, use_bias=False).init(key, x)["params"]
    np.testing.assert_array_equal(ours["kernel"], theirs["kernel"])


def test_bfloat16_keeps_a_float32_kernel_and_gradient():
    layer = Linear(8, jnp.bfloat16)
    params = layer.init(jax.random.key(0), jnp.ones((2, 16)))
    out, pull = jax.vjp(lambda params: layer.apply(params, jnp.ones((2, 16))), params)
    (grads,) = pull(jnp.ones_like(out))
    assert out.dtype == jnp.bfloat16
    assert grads["params"]["kernel"].dtype == params["params"]["kernel"].dtype == jnp.float32


def test_replicas_under_vmap_equal_each_alone():
    rng = np.random.default_rng(0)
    x, kernels = (
        jnp.asarray(rng.normal(size=(3, 4, 5)), jnp.float32),
        jnp.asarray(rng.normal(size=(3, 5, 2)), jnp.float32),
    )

    def slope(kernel, x):
        return jax.grad(lambda w: jnp.sum(Linear(2, jnp.float32).apply({"params": {"kernel": w}}, x) ** 2))(kernel)

    together = jax.vmap(slope)(kernels, x)
    alone = jnp.stack([slope(kernel, one) for kernel, one in zip(kernels, x, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
