"""The oracle itself, against a loop over rows in NumPy, and attention maps in blocks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.kernels import reference
from tests.mha.kernels import oracle

SEGMENTS = np.array([[1, 1, 2, 2, 2, 0, 0], [3, 1, 3, 0, 1, 1, 3]])


@pytest.mark.parametrize("causal", [True, False])
def test_weights_equal_a_loop_over_rows(causal):
    q, k, _, _ = oracle.inputs((2, 7, 3, 4))
    mask = dict(scale=0.5, causal=causal, segments_BT=jnp.asarray(SEGMENTS))
    got = reference.weights(jnp.asarray(q), jnp.asarray(k), **mask)
    for b in range(2):
        for t in range(7):
            seen = [
                s for s in range(7) if SEGMENTS[b, s] == SEGMENTS[b, t] != 0 and (s <= t or not causal)
            ]  # padding sees nothing
            for h in range(3):
                want = np.zeros(7)
                logits = 0.5 * k[b, seen, h].astype(np.float64) @ q[b, t, h]
                want[seen] = np.exp(logits) / np.exp(logits).sum()
                np.testing.assert_allclose(got[b, h, t], want, atol=1e-6)


@pytest.mark.parametrize("budget_blocks, sizes", [(100, {(4, 6)}), (13, {(2, 6)}), (4, {(1, 4), (1, 2)})])
def test_maps_in_blocks_are_the_maps(budget_blocks, sizes):
    """Every document and head once, the same weights as all at once, each block within the budget."""
    q, k = (jnp.asarray(x) for x in oracle.inputs((4, 7, 6, 2))[:2])
    segments = jnp.asarray(np.tile(SEGMENTS, (2, 1)))
    mask = dict(scale=1.0, causal=True, segments_BT=segments)
    budget = budget_blocks * 3 * 7 * 7 * 4
    got, shapes = np.full((4, 6, 7, 7), np.nan), set()
    for documents, heads, weights in reference.weights_in_blocks(q, k, **mask, budget_bytes=budget):
        assert 3 * weights.nbytes <= budget
        shapes.add(weights.shape[:2])
        got[documents, heads] = weights
    assert shapes == sizes
    np.testing.assert_allclose(got, reference.weights(q, k, **mask), atol=1e-6)


def test_maps_of_chosen_heads_alone():
    q, k = (jnp.asarray(x) for x in oracle.inputs((3, 7, 6, 2))[:2])
    mask = dict(scale=1.0, causal=True)
    blocks = list(reference.weights_in_blocks(q, k, **mask, heads=(5, 0, 2), budget_bytes=2 * 3 * 7 * 7 * 4))
    assert [(documents.start, heads.tolist()) for documents, heads, _ in blocks] == [
        (document, heads) for document in range(3) for heads in ([5, 0], [2])
    ]
    wanted = reference.weights(q, k, **mask)
    for documents, heads, weights in blocks:
        np.testing.assert_allclose(weights, wanted[documents, heads], atol=1e-6)


@pytest.mark.parametrize("segmented", [False, True])
def test_a_block_is_computed_within_its_budget(segmented):
    """By the compiled program's own account of what it holds."""
    length, budget = 64, 10 * 3 * 64 * 64 * 4
    q = jax.ShapeDtypeStruct((1, length, 10, 2), jnp.float32)
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32) if segmented else None
    memory = reference._weights.lower(q, q, segments, scale=1.0, causal=True).compile().memory_analysis()
    assert budget / 4 < memory.temp_size_in_bytes + memory.output_size_in_bytes <= budget


@pytest.mark.parametrize("heads", [[], [0, 3], [-1]])
def test_heads_that_are_not_there_are_refused(heads):
    q = jnp.ones((1, 7, 3, 2))
    with pytest.raises(ValueError, match=rf"weights are wanted of heads {re.escape(str(heads))}; choose among 0 ... 2"):
        next(reference.weights_in_blocks(q, q, scale=1.0, causal=True, heads=heads))


def test_a_budget_below_one_map_is_refused():
    q = jnp.ones((1, 7, 1, 2))
    with pytest.raises(ValueError, match="T=7 take 588 bytes with their intermediates, more than budget_bytes=500"):
        next(reference.weights_in_blocks(q, q, scale=1.0, causal=True, budget_bytes=500))
