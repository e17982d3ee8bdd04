"""Which attention path runs, and why: one pure function, one call.

Dimension key: B batch, T query position, S key position (S = T), H head, K head width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mha.kernels import blockwise, cudnn, heads_minor, lanes, pairs, reference

PATHS = ("reference", "heads_minor", "pairs", "blockwise", "lanes", "cudnn")
_SERVES = {"heads_minor": 1, "pairs": 2, "lanes": 1}  # paths for one d_k alone


class Choice(NamedTuple):
    path: str
    reason: str


def choose(requested: str, *, backend: str, d_k: int, length: int, dtype) -> Choice:
    """The path that serves this shape, under any mask; the table behind `auto` is measured by benchmarks/attention.py.

    Args:
      requested: `auto`, or the name of a path in PATHS.
      backend: `cpu`, `gpu` or `tpu`.
      d_k: head width.
      length: sequence length T.
      dtype: dtype of query, key and value.

    Raises:
      ValueError: `requested` is no path, or cannot serve this shape (the message names those that can).
    """
    if jnp.dtype(dtype) == jnp.float16:
        raise ValueError(
            "float16 attention is refused: its largest number is 65504 and its smallest normal 6e-5, so logits "
            "overflow and small weights vanish; use bfloat16 or float32 (model.dtype)."
        )
    if requested not in ("auto", *PATHS):
        raise ValueError(f"model.attention={requested!r} is no attention path; choose auto, {', '.join(PATHS)}.")
    refusals = {path: _refusal(path, backend, d_k, jnp.dtype(dtype)) for path in PATHS}
    if requested != "auto":
        if refusals[requested]:
            able = ", ".join(path for path in PATHS if not refusals[path])
            raise ValueError(f"model.attention={requested} {refusals[requested]}; paths that can: auto, {able}.")
        return Choice(requested, "requested")
    if not refusals["heads_minor"]:
        return Choice("heads_minor", "at d_k=1 a logit is one product: elementwise over heads beats a matmul on a CPU")
    if not refusals["pairs"]:
        return Choice("pairs", "at d_k=2 a matmul's tile is all but empty: elementwise over heads beats it on a CPU")
    if not refusals["lanes"]:
        return Choice("lanes", "at d_k=1 the exponentials are the bound: a kernel that keeps them in registers")
    if not refusals["cudnn"]:
        return Choice("cudnn", f"cuDNN's flash attention, d_k={d_k} padded to a multiple of 8")
    # At T = 256 and d_k = 128 plain attention takes .77 of blockwise's time alone on two cores, but 1.06 in a compiled
    # training loop on one. At smaller T and d_k = T/2 the loop decides (.95 to 1.1); at T = 512 blockwise wins in both.
    if backend == "cpu" and (d_k >= length or (d_k >= 128 and length <= 256)):
        return Choice("reference", f"at d_k={d_k} and T={length} the matmuls outweigh what tiles of logits save")
    return Choice("blockwise", f"tiles of logits that stay in the cache, by matmuls over d_k={d_k}")


def _refusal(path: str, backend: str, d_k: int, dtype) -> str:
    """Why `path` cannot serve this shape, as the end of a sentence; empty if it can."""
    if path in _SERVES and d_k != _SERVES[path]:
        return f"serves d_k={_SERVES[path]} only and d_k is {d_k}"
    if path in ("heads_minor", "pairs") and backend != "cpu":
        return f"is written for a CPU's vector lanes and the backend is {backend}"
    if path == "lanes" and backend not in ("gpu", "tpu"):
        return f"is a kernel for gpu (Hopper or newer) and tpu and the backend is {backend}"
    if path == "lanes" and dtype == jnp.float64:
        return "computes in float32 and the dtype is float64"
    if path == "cudnn" and backend != "gpu":
        return f"runs on NVIDIA GPUs and the backend is {backend}"
    if path == "cudnn" and dtype != jnp.bfloat16:
        return f"takes bfloat16 and the dtype is {dtype.name}"
    if path == "cudnn" and d_k > 128:
        return f"serves d_k up to 128 and d_k is {d_k}"
    return ""


def attend(q_BTHK, k_BSHK, v_BSHK, *, scale: float, causal: bool, segments_BT=None, path: str = "auto") -> jax.Array:
    """Exact softmax attention (Vaswani et al. 2017, equation 1) by the path that `choose` names.

    Args:
      q_BTHK, k_BSHK, v_BSHK: query, key and value, of one shape and dtype.
      scale: factor of the logits, d_k ** -0.5 as a rule.
      causal: whether a position sees only itself and earlier ones.
      segments_BT: int (B, T); a position sees its own segment only. 0 is padding, which neither sees nor is seen: its
        outputs and gradients are zero. Any ids in any order. None: one segment.
      path: `auto`, or the name of a path.

    Returns:
      Heads' outputs (B, T, H, K) before the output projection, in the dtype of `v_BSHK`.

    Raises:
      ValueError: shapes or dtypes disagree, or `path` cannot serve them.
    """
    shapes = [x.shape for x in (q_BTHK, k_BSHK, v_BSHK)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"query, key and value must share one shape (batch, length, heads, d_k); got {shapes[0]}, {shapes[1]} and "
            f"{shapes[2]}."
        )
    dtypes = [jnp.dtype(x.dtype).name for x in (q_BTHK, k_BSHK, v_BSHK)]
    if len(set(dtypes)) > 1:
        raise ValueError(f"query, key and value must share one dtype; got {dtypes[0]}, {dtypes[1]} and {dtypes[2]}.")
    batch, length, _, d_k = shapes[0]
    if segments_BT is not None:
        if segments_BT.shape != (batch, length):
            raise ValueError(
                f"segment ids have shape {segments_BT.shape}; for a query of shape {shapes[0]} they must be (batch, "
                f"length) = {(batch, length)}."
            )
        if not jnp.issubdtype(segments_BT.dtype, jnp.integer):
            raise ValueError(f"segment ids must be integers (0 for padding); got {segments_BT.dtype}.")
    choice = choose(path, backend=backend(), d_k=d_k, length=length, dtype=q_BTHK.dtype)
    with jax.named_scope(f"attend_{choice.path}"):
        if choice.path == "reference":
            return reference.attend(q_BTHK, k_BSHK, v_BSHK, scale=scale, causal=causal, segments_BT=segments_BT)
        inputs = (q_BTHK, k_BSHK, v_BSHK, segments_BT, float(scale), causal)
        if choice.path == "lanes":
            return lanes.attend(*inputs, backend())
        module = {"heads_minor": heads_minor, "pairs": pairs, "blockwise": blockwise, "cudnn": cudnn}[choice.path]
        return module.attend(*inputs)


def backend() -> str:
    return jax.default_backend()
