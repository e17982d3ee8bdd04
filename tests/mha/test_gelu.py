"""GELU's own backward pass against Flax's GELU in float64, and its error in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mha.gelu import gelu

VALUES = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -1e4, 1e4, 1e-30, -1e-30]])


def gradient(function, x):
    out, pull = jax.vjp(function, x)
    return out, pull(jnp.ones_like(x))[0]


def test_equals_flax_in_float64():
    with jax.enable_x64(True):
        for ours, theirs in zip(
            gradient(gelu, jnp.asarray(VALUES)), gradient(nn.gelu, jnp.asarray(VALUES)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-12, rtol=1e-12)


def test_float32_is_as_close_to_float64_as_flax_is():
    with jax.enable_x64(True):
        wanted = [np.asarray(x) for x in gradient(nn.gelu, jnp.asarray(VALUES))]
    narrow = jnp.asarray(VALUES, jnp.float32)
    for ours, theirs, exact in zip(gradient(gelu, narrow), gradient(nn.gelu, narrow), wanted, strict=True):
        error, bound = (np.max(np.abs(x - exact) / (1 + np.abs(exact))) for x in (ours, theirs))
        assert error <= 2 * bound + 1e-7
        assert np.isfinite(ours).all()
