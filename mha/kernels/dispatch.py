"""Which attention path runs, and why: one pure function, one call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mha.kernels import reference

PATHS = ("reference",)


class Choice(NamedTuple):
    path: str
    reason: str


def choose(requested: str, *, backend: str, d_k: int, length: int, dtype, causal: bool, segments: bool) -> Choice:
    """The path that serves this shape.

    Args:
      requested: `auto`, or the name of a path in PATHS.
      backend: `cpu`, `gpu` or `tpu`.
      d_k: head width.
      length: sequence length T.
      dtype: dtype of query, key and value.
      causal: whether later keys are hidden.
      segments: whether segment ids (packed documents, padding) mask as well.

    Raises:
      ValueError: `requested` is no path, or cannot serve this shape (the message names those that can).
    """
    if jnp.dtype(dtype) == jnp.float16:
        raise ValueError("float16 has 5 exponent bits and its softmax overflows above 65504: use bfloat16 or float32.")
    if requested not in ("auto", *PATHS):
        raise ValueError(f"model.attention={requested!r} is no attention path; choose auto, {', '.join(PATHS)}.")
    return Choice("reference", "the only path so far")


def attend(q_BTHK, k_BSHK, v_BSHK, *, scale: float, causal: bool, segments_BT=None, path: str = "auto") -> jax.Array:
    """Exact softmax attention by `path`; shapes and masking as in `reference.attend`."""
    del path
    return reference.attend(q_BTHK, k_BSHK, v_BSHK, scale=scale, causal=causal, segments_BT=segments_BT)


def backend() -> str:
    return jax.default_backend()
