"""exp for arguments below zero, in fewer instructions than XLA's on a CPU."""

import jax
import jax.numpy as jnp

# Least-maximum relative error polynomial for 2^f on [-1/2, 1/2] with the constant held at 1: 9.2e-8, below float32's
# rounding (a linear program over 4,001 Chebyshev points gives the same digits).
_POWER_OF_TWO = (
    1.0,
    0.6931469775266923,
    0.24022242123579454,
    0.05550733962802302,
    0.009671511324356166,
    0.0013264652391868253,
)
_LOG2_E = 1.4426950408889634
_LEAST_EXPONENT = -126.0  # of a normal float32
_ROUND_TO_UNITS = 12582912.0  # 1.5 * 2^23: adding it leaves the integer part in the low bits of a float32


def exp_nonpositive(x: jax.Array) -> jax.Array:
    """e^x for x <= 0, of any shape.

    float32: 2^(x log2 e) as a shifted exponent times a degree-5 polynomial (Cody and Waite 1980, chapter 6). The
    absolute error stays below 2e-7; below x = -87.3, where a float32 turns subnormal, the result is 0. NaN stays NaN.
    Positive x up to 88 is right too; beyond, the result is meaningless. Other dtypes: XLA's exp.
    """
    if x.dtype != jnp.float32:
        return jnp.exp(x)
    power = x * jnp.float32(_LOG2_E)
    whole = jax.lax.round(power, jax.lax.RoundingMethod.TO_NEAREST_EVEN)
    fraction = power - whole
    two_to_fraction = jnp.full_like(fraction, _POWER_OF_TWO[-1])
    for coefficient in _POWER_OF_TWO[-2::-1]:
        two_to_fraction = two_to_fraction * fraction + jnp.float32(coefficient)
    shift = jax.lax.bitcast_convert_type(whole + jnp.float32(_ROUND_TO_UNITS), jnp.int32) << 23
    bits = jax.lax.bitcast_convert_type(two_to_fraction, jnp.int32) + shift
    return jnp.where(power < _LEAST_EXPONENT, 0, jax.lax.bitcast_convert_type(bits, jnp.float32))
