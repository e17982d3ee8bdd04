"""The copying score against its definition written out, heads that copy by construction, and random heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.roles import copying
from mha.transformer import ModelConfig, Transformer
from tests.eval import planted

EVERY = np.arange(planted.FIRST, 24)  # the words of a plant


def drawn(vocab: int, d_model: int, heads: int, seed: int) -> dict:
    """Random weights of two layers, float64; the norms' gains are not all 1."""
    config = ModelConfig(vocab, 8, d_model, heads, d_model // heads, (8, 8))
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.uniform(0.5, 2, leaf.shape) if leaf.ndim == 1 else rng.normal(size=leaf.shape)  # noqa: E731
    return jax.tree.map(draw, shapes)


def slow(params: dict, layer: int, head: int, tokens) -> float:
    """One token after another."""
    block, last, shares = params[f"block_{layer}"], params["norm_final"]["scale"], []
    w_v, w_o = block["attention"]["w_v"][:, head], block["attention"]["w_o"][head]
    for attended in tokens:
        written = (params["embed"]["embedding"][attended] * block["norm_attention"]["scale"]) @ w_v @ w_o * last
        logits = {told: float(written @ params["unembed"]["kernel"][:, told]) for told in tokens}
        mean = sum(logits.values()) / len(logits)
        raised = {told: max(logit - mean, 0) for told, logit in logits.items()}
        shares.append(raised[attended] / sum(raised.values()))
    return 2 * sum(shares) / len(shares) - 1


@pytest.mark.parametrize("heads", [1, 4, 16])
def test_scores_are_those_of_the_definition(heads):
    params, tokens = drawn(vocab=11, d_model=16, heads=heads, seed=heads), np.array([1, 4, 5, 9])
    found = copying.scores(params, tokens)
    assert found.shape == (2, heads)
    for layer, head in np.ndindex(found.shape):
        assert found[layer, head] == pytest.approx(slow(params, layer, head, tokens), abs=1e-12)


def test_a_planted_induction_head_has_the_top_score():
    plant = planted.planted("induction")
    found = copying.scores(plant.params, EVERY)
    assert found[plant.head] == np.nanmax(found) > 0.9
    assert all(np.isnan(found[source]) for source in plant.sources), "what they copy is for a later head alone"
    found[plant.head] = -1
    assert np.nanmax(found) < -0.7


def test_a_head_that_tells_another_word_than_it_attends_to_does_not_copy():
    plant = planted.planted("previous")  # whose readout permutes the words
    assert copying.scores(plant.params, EVERY)[plant.head] < -0.9


@pytest.mark.parametrize("name", ["w_v", "w_o"])
def test_a_head_that_writes_nothing_has_no_score(name):
    params = drawn(vocab=9, d_model=8, heads=4, seed=0)
    weights = params["block_1"]["attention"][name]
    weights[(slice(None), 2) if name == "w_v" else 2] = 0
    assert np.argwhere(np.isnan(copying.scores(params, np.arange(9)))).tolist() == [[1, 2]]


@pytest.mark.parametrize("heads", [2, 32])
def test_random_heads_have_the_score_of_chance(heads):
    found = np.stack([copying.scores(drawn(20, 32, heads, seed), np.arange(20)) for seed in range(8)])
    error = found.mean(axis=(1, 2)).std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - (2 / 20 - 1)) < 4 * error and error < 0.03


def test_the_frequent_tokens_of_texts():
    tokens, length = np.array([[0, 5, 5, 7, 9], [0, 7, 5, 3, 3]]), np.array([4, 3])
    assert copying.frequent(tokens, length).tolist() == [5, 7]
    many = np.concatenate([[0], np.repeat(np.arange(1, 1000), 2), [999, 998, 997]])[None]
    found = copying.frequent(many, np.array([many.size]))
    assert len(found) == copying.MOST_TOKENS and {997, 998, 999} <= {*found.tolist()} and 0 not in found
