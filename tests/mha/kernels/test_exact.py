"""Every path against the float64 reference: outputs and all three gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mha.kernels import blockwise, heads_minor, pairs
from tests.mha.kernels import oracle

PATHS = [("heads_minor", 1), ("pairs", 2), ("blockwise", 1), ("blockwise", 4)]
# one token; a prime length, no multiple of any block, with packed documents; whole blocks with scattered segments
LENGTHS = {1: "none", 67: "packed", 128: "scattered"}


def packed(batch: int, length: int, seed: int = 0) -> np.ndarray:
    """Documents side by side, padding at the end of each row and one row of padding alone."""
    ids = np.sort(np.random.default_rng(seed).integers(1, 5, (batch, length)), axis=1)
    ids[:, length - length // 5 :] = 0
    ids[-1] = 0
    return ids


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("path, d_k", PATHS)
def test_equals_the_reference(path, d_k, length, causal):
    kind = LENGTHS[length]
    segments = {
        "none": None,
        "packed": packed(3, length),
        "scattered": np.random.default_rng(1).integers(0, 3, (3, length)),
    }[kind]
    oracle.check(path, oracle.inputs((3, length, 5, d_k)), causal=causal, segments=segments)


@pytest.mark.parametrize("path, d_k", [("heads_minor", 1), ("pairs", 2), ("blockwise", 64)])
def test_one_head(path, d_k):
    """h=1, also at the widest head."""
    oracle.check(path, oracle.inputs((2, 67, 1, d_k)), causal=True)


@pytest.mark.parametrize("path, d_k", [("heads_minor", 1), ("pairs", 2)])
@pytest.mark.parametrize("batch, heads, lanes", [(8, 6, 48), (6, 2, 4), (2, 16, 16)])
def test_entries_stand_side_by_side_until_they_fill_vectors(path, d_k, batch, heads, lanes):
    """See `walk.batched`; each entry keeps its own mask."""
    arrays = oracle.inputs((batch, 67, heads, d_k))
    segments = np.random.default_rng(1).integers(0, 3, (batch, 67))
    oracle.check(path, arrays, causal=True, segments=segments)
    attend = {"heads_minor": heads_minor, "pairs": pairs}[path].attend
    program = str(jax.make_jaxpr(lambda q, k, v, _: attend(q, k, v, segments, 1.0, True))(*map(jnp.asarray, arrays)))
    assert f",64,{lanes}] " in program


@pytest.mark.parametrize("path, d_k", PATHS)
def test_equal_logits_give_running_means(path, d_k):
    q, k, v, d_out = oracle.inputs((2, 67, 3, d_k))
    out = oracle.check(path, [np.zeros_like(q), k, v, d_out], causal=True)[0]
    means = np.cumsum(v, axis=1) / np.arange(1, 68)[None, :, None, None]
    np.testing.assert_allclose(out, means, atol=2e-6)


@pytest.mark.parametrize("path, d_k", [("heads_minor", 1), ("pairs", 2), ("blockwise", 2), ("blockwise", 16)])
def test_logits_of_ten_thousand_pick_their_largest(path, d_k):
    """Logits within +-1e4, at least 20 apart: the output is the value of the largest visible one, the rest vanishes."""
    length = 67
    rng = np.random.default_rng(0)
    _, _, v, d_out = oracle.inputs((2, length, 3, d_k))
    steps = np.stack([[rng.permutation(length) for _ in range(3)] for _ in range(2)])  # (B, H, S), no ties
    q, k = np.zeros_like(v), np.zeros_like(v)
    q[..., 0] = 100 * d_k**0.5 * rng.choice([-1, 1], (2, length, 3))
    k[..., 0] = (steps.transpose(0, 2, 1) - length // 2) * 3
    got = oracle.check(path, [q, k, v, d_out], causal=True)
    logits = np.einsum("BTH,BSH->BHTS", q[..., 0], k[..., 0]) / d_k**0.5
    assert 9000 < np.abs(logits).max() <= 10000
    best = np.where(np.tril(np.ones((length, length), bool)), logits, -np.inf).argmax(-1)
    want = np.take_along_axis(v.transpose(0, 2, 1, 3), best[..., None], axis=2).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(got[0], want)
    assert not got[1].any() and not got[2].any()


@pytest.mark.parametrize("path, d_k", PATHS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_padding_gives_and_gets_nothing(path, d_k, causal):
    """Outputs and gradients at padding are exactly zero, whatever stands there, even where all is padding."""
    segments = packed(3, 67)
    padding = segments == 0
    arrays = oracle.inputs((3, 67, 5, d_k))
    clean = oracle.results(path, arrays, causal=causal, segments=segments)
    for x in arrays:
        x[padding] = 1e6
    for a, b in zip(clean, oracle.results(path, arrays, causal=causal, segments=segments), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not b[padding].any()
        assert b[~padding].any()


@pytest.mark.parametrize("path, d_k", PATHS)
def test_bfloat16_within_twice_the_plain_error(path, d_k):
    oracle.check(path, oracle.inputs((2, 67, 3, d_k)), causal=True, dtype=jnp.bfloat16, floor=2**-9)


@pytest.mark.parametrize("path, d_k", PATHS)
def test_float64_stays_float64(path, d_k):
    arrays = oracle.inputs((2, 67, 3, d_k))
    want = oracle.results("reference", arrays, causal=True, dtype=jnp.float64)
    got = oracle.results(path, arrays, causal=True, dtype=jnp.float64)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * np.abs(b).max())


@pytest.mark.parametrize("path, d_k", [("heads_minor", 1), ("pairs", 2), ("blockwise", 4)])
def test_gradients_equal_finite_differences(path, d_k):
    """Central differences along random directions in float64."""
    arrays = oracle.inputs((3, 19, 2, d_k))
    mask = dict(causal=True, segments=packed(3, 19), dtype=jnp.float64)
    _, *grads = oracle.results(path, arrays, **mask)
    rng, step = np.random.default_rng(3), 1e-5
    for i in range(3):
        direction = rng.normal(size=arrays[i].shape)
        ends = []
        for sign in (1, -1):
            moved = [np.asarray(x, np.float64) for x in arrays]
            moved[i] = moved[i] + sign * step * direction
            ends.append((oracle.results(path, moved, **mask)[0] * arrays[3]).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose((grads[i] * direction).sum(), slope, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "path, d_k, length", [("heads_minor", 1, 21), ("pairs", 2, 21), ("blockwise", 4, 21), ("blockwise", 2, 70)]
)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_values_any_mask(path, d_k, length, data):
    """Values up to 30 (logits up to 900 d_k) and any segment ids, on one shape a path."""
    shape = (2, length, 3, d_k)
    value = st.floats(-30, 30, width=32)
    arrays = [data.draw(hnp.arrays(np.float32, shape, elements=value, fill=value)) for _ in range(2)]
    segments = data.draw(hnp.arrays(np.int32, (2, length), elements=st.integers(0, 3)))
    v, d_out = oracle.inputs(shape)[2:]
    causal = data.draw(st.booleans())
    # The values may be such that the gradients cancel, or the logits so large (spacing 6e-5 at 1e3) that no float32
    # path is exact: errors are held against the size of the terms that are summed.
    top_q, top_k, top_v, top_d_out = (float(np.abs(x).max()) for x in (*arrays, v, d_out))
    slope = d_k**0.5 * top_d_out * top_v
    sizes = [top_v, slope * top_k, slope * top_q * length, top_d_out * length]
    floor = 2e-6 * (1 + top_q * top_k * d_k**0.5)
    oracle.check(path, [*arrays, v, d_out], causal=causal, segments=segments, floor=floor, sizes=sizes)


def test_nan_is_not_hidden():
    for path, d_k in PATHS:
        q, k, v, d_out = oracle.inputs((1, 16, 2, d_k))
        q[0, 3, 0] = np.nan
        with jax.debug_nans(False):
            out = oracle.results(path, [q, k, v, d_out], causal=True)[0]
        assert np.isnan(out[0, 3, 0]).all(), path
        assert np.isfinite(np.delete(out, 3, axis=1)).all(), path


@pytest.mark.parametrize("batch, loops", [(1, False), (2, True), (6, True)])
def test_blockwise_takes_no_batch_in_one_piece_on_a_cpu(batch, loops):
    """See blockwise.py: outside a loop XLA:CPU takes longer, however small the batch."""
    x = jnp.zeros((batch, 8, 2, 4))
    program = str(jax.make_jaxpr(lambda x: blockwise.attend(x, x, x, None, 0.5, True))(x))
    assert ("scan[" in program) == loops
