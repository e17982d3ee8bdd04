"""The dispatcher: its table, its refusals, and that the path it names is the one that runs."""

import re

import jax
import jax.numpy as jnp
import pytest

from mha.kernels import dispatch

CPU = dict(backend="cpu", length=256, dtype=jnp.float32)


@pytest.mark.parametrize(
    "backend, d_k, dtype, path",
    [
        ("cpu", 1, jnp.float32, "heads_minor"),
        ("cpu", 1, jnp.bfloat16, "heads_minor"),
        ("cpu", 1, jnp.float64, "heads_minor"),
        ("cpu", 2, jnp.float32, "pairs"),
        ("cpu", 2, jnp.float64, "pairs"),
        ("cpu", 3, jnp.float32, "blockwise"),
        ("gpu", 2, jnp.float32, "blockwise"),
        ("cpu", 16, jnp.float32, "blockwise"),
        ("cpu", 127, jnp.float32, "blockwise"),
        ("cpu", 128, jnp.float32, "reference"),  # half as wide as T
        ("gpu", 1, jnp.float32, "lanes"),
        ("gpu", 1, jnp.bfloat16, "lanes"),
        ("gpu", 1, jnp.float64, "blockwise"),
        ("gpu", 4, jnp.bfloat16, "cudnn"),
        ("gpu", 4, jnp.float32, "blockwise"),
        ("gpu", 256, jnp.bfloat16, "blockwise"),
        ("tpu", 1, jnp.bfloat16, "lanes"),
        ("tpu", 16, jnp.bfloat16, "blockwise"),
    ],
)
def test_table(backend, d_k, dtype, path):
    choice = dispatch.choose("auto", **CPU | dict(backend=backend, d_k=d_k, dtype=dtype))
    assert choice.path == path
    assert len(choice.reason) > 20


@pytest.mark.parametrize("length, d_k, path", [(64, 63, "blockwise"), (64, 64, "reference"), (512, 256, "blockwise")])
def test_how_wide_a_head_is_for_its_length(length, d_k, path):
    assert dispatch.choose("auto", **CPU | dict(length=length), d_k=d_k).path == path


def test_a_request_is_honoured():
    for path in ("reference", "blockwise", "heads_minor"):
        assert dispatch.choose(path, **CPU, d_k=1) == (path, "requested")


@pytest.mark.parametrize(
    "path, change, words",
    [
        ("flash", {}, "is no attention path; choose auto, reference, "),
        ("heads_minor", {}, "serves d_k=1 only and d_k is 4; paths that can: auto, reference, blockwise"),
        ("pairs", {}, "serves d_k=2 only and d_k is 4; paths that can: auto, reference, blockwise"),
        ("heads_minor", dict(d_k=1, backend="gpu"), "the backend is gpu; paths that can: auto, reference"),
        ("lanes", dict(d_k=1), "the backend is cpu; paths that can: auto, reference, heads_minor, blockwise"),
        (
            "cudnn",
            dict(backend="gpu"),
            "takes bfloat16 and the dtype is float32; paths that can: auto, reference, block",
        ),
        ("cudnn", dict(backend="gpu", dtype=jnp.bfloat16, d_k=256), "serves d_k up to 128 and d_k is 256"),
        ("auto", dict(dtype=jnp.float16), "float16 attention is refused: .* use bfloat16 or float32"),
    ],
)
def test_refusals_say_what_can_be_done(path, change, words):
    with pytest.raises(ValueError, match=words):
        dispatch.choose(path, **CPU | dict(d_k=4) | change)


def ran(path: str, d_k: int) -> set[str]:
    """Names of the paths whose operations stand in the compiled program's metadata, forward and backward."""
    x = jnp.ones((1, 16, 2, d_k))

    def loss(q):
        return dispatch.attend(q, x, x, scale=1.0, causal=True, path=path).sum()

    text = jax.jit(jax.grad(loss)).lower(x).as_text(debug_info=True)
    return {name for name in dispatch.PATHS if re.search(rf"mha/kernels/{name}\.py", text)}


@pytest.mark.parametrize(
    "path, d_k",
    [("reference", 4), ("blockwise", 4), ("heads_minor", 1), ("pairs", 2), ("auto", 1), ("auto", 2), ("auto", 4)],
)
def test_the_path_named_is_the_one_that_ran(path, d_k):
    named = dispatch.choose(path, **CPU, d_k=d_k).path
    assert ran(path, d_k) == {named}


def test_shapes_that_disagree_are_all_listed():
    q, k = jnp.ones((2, 8, 4, 1)), jnp.ones((2, 9, 4, 1))
    with pytest.raises(ValueError, match=r"\(2, 8, 4, 1\), \(2, 9, 4, 1\) and \(2, 8, 4, 1\)"):
        dispatch.attend(q, k, q, scale=1.0, causal=True)
    with pytest.raises(ValueError, match=r"\(8, 4\), \(8, 4\) and \(8, 4\)"):
        dispatch.attend(*[q[0, ..., 0]] * 3, scale=1.0, causal=True)


def test_segments_of_the_wrong_shape_or_kind_are_refused():
    q = jnp.ones((2, 8, 4, 1))
    with pytest.raises(ValueError, match=r"\(8,\); .* must be \(batch, length\) = \(2, 8\)"):
        dispatch.attend(q, q, q, scale=1.0, causal=True, segments_BT=jnp.ones(8, jnp.int32))
    with pytest.raises(ValueError, match="segment ids must be integers .* got float32"):
        dispatch.attend(q, q, q, scale=1.0, causal=True, segments_BT=jnp.ones((2, 8)))


def test_dtypes_that_disagree_are_listed():
    q = jnp.ones((2, 8, 4, 1))
    with pytest.raises(ValueError, match="float32, bfloat16 and float32"):
        dispatch.attend(q, q.astype(jnp.bfloat16), q, scale=1.0, causal=True)
