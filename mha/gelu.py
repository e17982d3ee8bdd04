"""GELU whose backward pass stores nothing but the input."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

_SLOPE = math.sqrt(2 / math.pi)
_CUBE = 0.044715


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016, section 2), any shape.

    The backward pass computes the tanh again: stored, it would be written and read as often as all else here.
    """
    return nn.gelu(x)


def _backward(x, d_out):
    x = jax.lax.optimization_barrier(x)  # else XLA finds the forward pass's tanh, and stores it
    tanh = jnp.tanh(_SLOPE * (x + _CUBE * x * x * x))
    return (d_out * (1 + tanh) * (1 + x * (1 - tanh) * (_SLOPE * (1 + 3 * _CUBE * x * x))) / 2,)


gelu.defvjp(lambda x: (gelu(x), x), _backward)
