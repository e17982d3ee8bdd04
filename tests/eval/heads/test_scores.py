"""Importance against finite differences, plain sums and draws; heads made dead by hand matter least to all measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.importance import engine, hard_concrete, orders, relevance, scores
from mha.kernels import reference
from mha.transformer import Transformer
from tests.eval.heads.test_engine import made, naive
from train.data.gold import EvalWindows

DEAD = [(0, 2), (1, 0), (1, 3)]


def windows_of(columns):
    tokens, length, first, last = columns
    return EvalWindows(tokens, length, first, last, np.arange(len(length)), np.zeros_like(length))


@pytest.fixture(scope="module")
def scene():
    """A model of two layers with DEAD heads, and windows."""
    model, params, columns = made(dtype="float32", d_ff=(12, 12))
    for layer, head in DEAD:
        attention = dict(params[f"block_{layer}"]["attention"])
        attention |= {name: attention[name].at[:, head].set(0) for name in ("w_q", "w_k", "w_v")}
        attention["w_o"] = attention["w_o"].at[head].set(0)
        params[f"block_{layer}"] = params[f"block_{layer}"] | {"attention": attention}
    # Text that the model itself says, so that every head that does anything helps.
    tokens, length = np.array(columns[0]), np.full(5, model.seq_len, np.int32)
    apply = jax.jit(Transformer(model).apply)
    for place in range(model.seq_len):
        logits, _ = apply({"params": params}, jnp.asarray(tokens[:, :-1], int))
        tokens[:, place + 1] = np.argmax(logits[:, place], axis=-1)
    return model, params, windows_of((tokens, length, np.zeros_like(length), length))


def test_gradients_are_central_differences_of_the_gates():
    with jax.enable_x64(True):
        model, params, columns = made(d_ff=(12, 12))
        gates = np.full((2, 4), 0.7)
        found = np.asarray(scores.gate_gradients(model, params, columns, jnp.asarray(gates)))
        for head in np.ndindex(2, 4):
            ends = []
            for sign in (1, -1):
                moved = gates.copy()
                moved[head] += sign * 1e-4
                ends.append(np.asarray(engine.losses(model, params, columns, jnp.asarray(moved))))
            wanted = (ends[0] - ends[1]) / 2e-4
            np.testing.assert_allclose(found[head[0], :, head[1]], wanted, rtol=1e-3, atol=1e-6)
        whole = scores.gradient(model, params, windows_of(columns), gates)
        counted = (columns[3] - columns[2]).sum()
        np.testing.assert_allclose(whole, np.abs(found).sum(axis=1) / counted, rtol=1e-6)


def test_normalised_layers_have_one_length():
    given = np.array([[3.0, 4.0], [0.1, 0.0], [0.0, 0.0]])
    assert np.allclose(scores.normalised(given), [[0.6, 0.8], [1, 0], [0, 0]])


def test_norms_and_confidence_are_plain_means(scene):
    model, params, windows = scene
    norm, confidence = scores.norms_and_confidence(model, params, windows)
    segments = jnp.asarray((np.arange(model.seq_len)[None] < windows.length[:, None]).astype(np.int32))
    tokens = jnp.asarray(windows.tokens[:, :-1], int)
    _, seen = Transformer(model).apply({"params": params}, tokens, segments, None, True)
    for layer in range(2):
        written = np.einsum("BTHK,HKD->BTHD", seen["heads"][layer], params[f"block_{layer}"]["attention"]["w_o"])
        lengths = np.linalg.norm(written, axis=-1)
        query, key = seen["query"][layer], seen["key"][layer]
        a = np.asarray(reference.weights(query, key, scale=model.d_k**-0.5, causal=True, segments_BT=segments))
        inside = [(row, place) for row, n in enumerate(windows.length) for place in range(n)]
        assert np.allclose(norm[layer], np.mean([lengths[at] for at in inside], axis=0), rtol=1e-4)
        most = [a[row, :, place, 1:].max(axis=-1) for row, place in inside if place > 0]
        assert np.allclose(confidence[layer], np.mean(most, axis=0), rtol=1e-4)


def test_expected_l0_is_the_share_of_open_draws():
    log_a = jnp.linspace(-4, 4, 9)
    draws = jax.vmap(lambda key: hard_concrete.drawn(key, log_a))(jax.random.split(jax.random.key(0), 20_000))
    assert np.allclose(
        np.mean(np.asarray(draws) > 0, axis=0), hard_concrete.p_open(log_a), atol=4 * 0.5 / np.sqrt(20_000)
    )
    assert draws.min() == 0 and draws.max() == 1
    assert (np.diff(np.asarray(hard_concrete.settled(log_a))) >= 0).all()


@pytest.mark.parametrize("order", [order for order in orders.ORDERS if "random" not in order])
def test_dead_heads_go_first(order, scene):
    model, params, windows = scene
    columns = (windows.tokens, windows.length, windows.first, windows.last)
    losses, closed = (np.asarray(each) for each in engine.closed_losses(model, params, columns))
    rise = (closed - losses).sum(axis=-1)
    assert all((rise[head] > 1e-3) == (head not in DEAD) for head in np.ndindex(2, 4)), "the premise"
    first, *rest = orders.rounds(order, model, params, windows, number=3, seed=0)
    assert set(first) == set(DEAD) and [len(each) for each in (first, *rest)] == [3, 2, 3]
    assert sorted(head for each in (first, *rest) for head in each) == list(np.ndindex(2, 4))


@pytest.mark.slow
def test_gates_that_learn_close_the_dead_heads_first(scene):
    model, params, windows = scene
    closed = orders.by_gates(model, params, windows, strength=0.05, seed=0)
    assert set(DEAD) <= set(closed) and len(closed) < 8
    log_a = hard_concrete.learned(model, params, windows, 0.0, 5, 0)
    assert np.allclose([log_a[head] for head in DEAD], hard_concrete.START), "without a penalty nothing moves them"


def test_random_orders_are_whole_and_even_within_layers(scene):
    model, params, windows = scene
    for order in (orders.RANDOM, orders.WITHIN_LAYERS):
        drawn = [list(orders.rounds(order, model, params, windows, 4, [seed, 0])) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert sorted(sum(drawn[0], [])) == list(np.ndindex(2, 4))
    assert all({layer for layer, _ in each} == {0, 1} for each in drawn[0]), "a round of two takes one of each layer"


def test_greedy_goes_by_what_is_left(scene):
    """Its second round knows the first: each head is the one of least loss given those that are gone."""
    model, params, windows = scene
    columns = (windows.tokens, windows.length, windows.first, windows.last)
    removed = []
    for (head,) in list(orders.rounds(orders.GREEDY, model, params, windows, 8, 0))[:5]:
        gates = orders.gates(model, removed)
        losses = {
            each: naive(model, params, columns, each, None, gates).sum() for each in np.ndindex(2, 4) if gates[each]
        }
        assert losses[head] <= min(losses.values()) + 1e-3
        removed.append(head)


def test_shares_and_heads_that_cannot_be_are_refused(scene):
    assert [orders.at_share(64, share) for share in (0, 0.7, 1)] == [0, 45, 64]
    assert orders.counts(64, 10)[-1] == 64 and orders.counts(3, 10) == [1, 2, 3]
    assert not orders.gates(scene[0], list(np.ndindex(2, 4))).any(), "all heads may go"
    with pytest.raises(ValueError, match="from 0 to 1, and 1.2 is not"):
        orders.at_share(64, 1.2)
    with pytest.raises(ValueError, match="are not among 2 layers of 4 heads"):
        orders.gates(scene[0], [(2, 0)])
    with pytest.raises(ValueError, match=r"gates have shape \(1, 4\); this model takes"):
        engine.losses(*scene[:2], made(dtype="float32")[2], jnp.ones((1, 4)))


@pytest.mark.parametrize("logit_scale", ["sqrt", "learned"])
def test_relevance_is_conserved(logit_scale):
    """What enters the first block has all the relevance of the logits, so the linear network is the model itself."""
    with jax.enable_x64(True):
        model, params, columns = made(d_ff=(12, 12), logit_scale=logit_scale)
        heads, entered, logits = relevance.of_batch(model, params, columns)
        np.testing.assert_allclose(entered, logits, rtol=1e-9)
        shares = relevance.relevance(model, params, windows_of(columns))
        np.testing.assert_allclose(np.abs(shares).sum(axis=1), 1)
        np.testing.assert_allclose(shares, heads / np.abs(heads).sum(axis=1, keepdims=True), rtol=1e-6)
