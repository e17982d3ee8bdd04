"""What a fast path is held to: outputs and gradients of the reference in float64, and its own error in float32.

Dimension key: B batch, T query position, S key position, H head, K head width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mha.kernels import dispatch

NAMES = ("output", "query gradient", "key gradient", "value gradient")


def inputs(shape, seed: int = 0) -> list[np.ndarray]:
    """Query, key, value and the output's cotangent, standard normal in float32."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(4)]


@functools.cache
def _compiled(path: str, causal: bool, scale: float):
    def run(q_BTHK, k_BSHK, v_BSHK, d_out_BTHK, segments_BT):
        def attend(q_BTHK, k_BSHK, v_BSHK):
            mask = dict(causal=causal, segments_BT=segments_BT)
            return dispatch.attend(q_BTHK, k_BSHK, v_BSHK, scale=scale, **mask, path=path)

        out_BTHK, pull = jax.vjp(attend, q_BTHK, k_BSHK, v_BSHK)
        return out_BTHK, *pull(d_out_BTHK)

    return jax.jit(run)


def results(path, arrays, *, causal, segments=None, dtype=jnp.float32, scale=None) -> list[np.ndarray]:
    """Output and the three gradients, computed in `dtype`, as float64."""
    scale = arrays[0].shape[-1] ** -0.5 if scale is None else scale
    with jax.enable_x64(dtype == jnp.float64):
        segments = None if segments is None else jnp.asarray(segments, jnp.int32)
        out = _compiled(path, causal, scale)(*(jnp.asarray(x, dtype) for x in arrays), segments)
        return [np.asarray(x.astype(jnp.promote_types(x.dtype, jnp.float32)), np.float64) for x in out]


def check(path, arrays, *, causal, segments=None, dtype=jnp.float32, floor=2e-6, sizes=None) -> list[np.ndarray]:
    """Assert max|error| / max|reference| of every result is at most `floor`, or twice the plain path's in `dtype`.

    `sizes` replaces max|reference|, one for each result. Where the reference is zero throughout (the logits' gradients
    of a single key) it is max|error| itself that is bounded.
    """
    if dtype != jnp.float32:
        arrays = [np.asarray(jnp.asarray(x, dtype).astype(jnp.float32)) for x in arrays]
    mask = dict(causal=causal, segments=segments)
    want = results("reference", arrays, **mask, dtype=jnp.float64)
    plain = results("reference", arrays, **mask, dtype=dtype)
    got = results(path, arrays, **mask, dtype=dtype)
    sizes = sizes or [np.abs(true).max() for true in want]
    for name, mine, theirs, true, size in zip(NAMES, got, plain, want, sizes, strict=True):
        assert np.isfinite(mine).all(), f"{path}: {name} is not finite"
        error, plain_error = np.abs(mine - true).max(), np.abs(theirs - true).max()
        bound = max(floor * (size or 1.0), 2 * plain_error)
        assert error <= bound, f"{path}: {name} is off by {error:.2e}, allowed {bound:.2e}; largest {size:.2e}"
    return got
