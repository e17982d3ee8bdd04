"""Accelerator paths without one: exact in interpret mode, and lowered for their target."""

import functools
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from mha.kernels import blockwise, cudnn, dispatch, lanes
from tests.mha.kernels import oracle

SEGMENTS = np.sort(np.random.default_rng(0).integers(0, 3, (2, 37)), axis=1)


def run(attend, q, k, v, d_out, segments):
    """Output and the three gradients of attend(q, k, v, segments)."""
    out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, segments), q, k, v)
    return out, *pull(d_out)


def close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize("target", ["gpu", "tpu"])
@pytest.mark.parametrize(
    "causal, segments",
    [
        pytest.param(True, SEGMENTS, id="causal, packed"),
        pytest.param(False, None, id="both ways, one segment", marks=pytest.mark.slow),
        pytest.param(True, None, id="causal, one segment", marks=pytest.mark.slow),
        pytest.param(False, SEGMENTS, id="both ways, packed", marks=pytest.mark.slow),
    ],
)
def test_lanes_equal_the_reference_in_interpret_mode(target, causal, segments):
    """A length and a number of lanes that fill no block, documents packed and padded."""
    arrays = oracle.inputs((2, 37, 3, 1))
    want = oracle.results("reference", arrays, causal=causal, segments=segments, dtype=jnp.float64)

    def attend(q, k, v, segments):
        return lanes.attend(q, k, v, segments, 1.0, causal, target, True)

    close(jax.jit(functools.partial(run, attend))(*arrays, segments), want)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["gpu", "tpu"])
def test_lanes_under_vmap(target):
    arrays = [np.stack(x) for x in zip(*(oracle.inputs((2, 16, 2, 1), i) for i in range(2)), strict=True)]

    def attend(q, k, v, segments):
        return lanes.attend(q, k, v, segments, 1.0, True, target, True)

    together = jax.jit(jax.vmap(functools.partial(run, attend, segments=None)))(*arrays)
    one = jax.jit(functools.partial(run, attend, segments=None))
    for i in range(2):
        close([x[i] for x in together], one(*(x[i] for x in arrays)))


def lowered(platform: str, attend, d_k: int, dtype, segments: bool) -> str:
    """The program of `run` at B=32, h=512/d_k, T=512 for `platform`, as text."""
    x = jax.ShapeDtypeStruct((32, 512, 512 // d_k, d_k), dtype)
    ids = jax.ShapeDtypeStruct((32, 512), jnp.int32) if segments else None
    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(functools.partial(run, attend)).trace(x, x, x, x, ids)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("segments", [False, True], ids=["one segment", "packed"])
@pytest.mark.parametrize("target, platform, call", [("gpu", "cuda", "mosaic_gpu"), ("tpu", "tpu", "tpu_custom_call")])
def test_lanes_lower_for_their_target(target, platform, call, segments):
    def attend(q, k, v, segments):
        return lanes.attend(q, k, v, segments, 1.0, True, target)

    assert lowered(platform, attend, 1, jnp.bfloat16, segments).count(call) >= 3


@pytest.mark.parametrize("segments, kind", [(False, "fmhaSoftmax"), (True, "fmhaScaleBiasSoftmax")])
def test_cudnn_lowers_forward_and_backward_with_the_true_scale(segments, kind):
    def attend(q, k, v, segments):
        return cudnn.attend(q, k, v, segments, 0.5, True)

    module = "jax._src.cudnn.fused_attention_stablehlo"
    with mock.patch(f"{module}.check_cudnn_version", lambda: 91000):
        text = lowered("cuda", attend, 4, jnp.bfloat16, segments)
    assert f"cudnn${kind}" in text and f"cudnn${kind}Backward" in text
    assert r"fmha_scale\22: 0.5" in text


def test_cudnn_path_is_exact_where_its_call_is():
    """Padding of d_k, segments as a mask and zeroed outputs, with JAX's own attention in the place of cuDNN's."""
    arrays = oracle.inputs((2, 37, 3, 3))
    want = oracle.results("reference", arrays, causal=True, segments=SEGMENTS, dtype=jnp.float64)
    plain = jax.nn.dot_product_attention

    def stand_in(*args, implementation, **kwargs):
        assert implementation == "cudnn" and args[0].shape[-1] == 8
        return plain(*args, **kwargs)

    with mock.patch("jax.nn.dot_product_attention", stand_in):
        got = run(lambda q, k, v, ids: cudnn.attend(q, k, v, ids, 3**-0.5, True), *map(jnp.asarray, arrays), SEGMENTS)
    close(got, want)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_blockwise_lowers_where_no_kernel_applies(platform):
    def attend(q, k, v, segments):
        return blockwise.attend(q, k, v, segments, 0.25, True)

    assert "dot_general" in lowered(platform, attend, 16, jnp.float32, True)


def seconds_of_step(d_k: int) -> float:
    """Forward and backward in bfloat16 at B=32, d=512, T=512 on the accelerator, the median of 20 calls."""
    from benchmarks import timing

    x = jax.random.normal(jax.random.key(0), (32, 512, 512 // d_k, d_k), jnp.bfloat16)

    def attend(q, k, v, segments):
        return dispatch.attend(q, k, v, scale=d_k**-0.5, causal=True, segments_BT=segments)

    step = jax.jit(functools.partial(run, attend, segments=None))
    return timing.take_turns({"step": timing.timed(step, x, x, x, x)}, 20, 1)["step"].median


def accelerator(platform: str):
    if jax.default_backend() != platform:
        pytest.skip(f"no {platform} here")


@pytest.mark.gpu
def test_attention_at_one_number_a_head_is_affordable_on_a_gpu():
    accelerator("gpu")
    assert seconds_of_step(1) < 0.02  # 4.3e9 visible exponentials three times over at a fifth of an H100's rate


def hopper():
    """Skips where the device is not one that the figures below are demanded of."""
    accelerator("gpu")
    kind = jax.devices()[0].device_kind
    if kind not in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        pytest.skip(f"no H100 or H200 here, but {kind}")


@pytest.mark.gpu
def test_a_training_step_at_d_model_512_reaches_35_percent_of_the_peak(tmp_path):
    hopper()
    from benchmarks import accelerator as figures

    assert figures.training_step(figures.corpus_in(tmp_path))["mfu"] >= 0.35


@pytest.mark.gpu
def test_64_replicas_in_one_program_do_16_times_the_steps_of_one(tmp_path):
    hopper()
    from benchmarks import accelerator as figures

    assert figures.side_by_side(figures.corpus_in(tmp_path))["times_one"] >= 16


@pytest.mark.gpu
def test_attention_at_one_number_a_head_takes_half_the_time_of_pytorch():
    hopper()
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    from benchmarks import accelerator as figures
    from benchmarks import peers
    from train.hosts import slots

    assert figures.attention(peers.Torch(sys.executable, slots.threads(), "cuda"))["torch_over_ours"] >= 2


@pytest.mark.tpu
def test_attention_at_one_number_a_head_is_affordable_on_a_tpu():
    accelerator("tpu")
    assert seconds_of_step(1) < 0.2
