"""Composition: against products of whole matrices, known answers, and a null that holds."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from eval.heads.composition import scores
from eval.heads.composition.scores import EARLIER, KINDS, LATER, SAME
from mha.transformer import ModelConfig, Transformer

Q, K, V = range(3)


@functools.cache
def shapes(config):
    return jax.eval_shape(Transformer(config).init, jax.random.key(0), np.zeros((1, 8), int))["params"]


CONFIG = ModelConfig(11, 8, 16, 4, 4, (8, 8))


def model(layers=2, heads=4, d_k=4, d_model=16, logit_scale="sqrt", seed=0):
    """Parameters whose gains are not what they begin with, and whose spectra are steep as after training."""
    shape = dict(d_model=d_model, num_heads=heads, d_k=d_k, d_ff=(8,) * layers, logit_scale=logit_scale)
    config = dataclasses.replace(CONFIG, **shape)
    random = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes(config))
    for name, block in params.items():
        if name.startswith("block_"):
            block["attention"]["w_o"] *= 1.5 ** -np.arange(d_k)[None, :, None]
            block["norm_attention"]["scale"] = 1 + 0.5 * random.random(d_model)
    return params


def whole(params, layer, head):
    """OV and QK of a head as (d_model, d_model) matrices."""
    block = params[f"block_{layer}"]
    gain = np.diag(block["norm_attention"]["scale"])
    w = {name: np.asarray(block["attention"][name])[:, head] for name in ("w_q", "w_k", "w_v")}
    for name in ("w_q", "w_k"):
        if f"norm_{name[-1]}" in block["attention"]:
            d_k = w[name].shape[1]
            w[name] = w[name] * block["attention"][f"norm_{name[-1]}"]["scale"][head * d_k : (head + 1) * d_k]
    return gain @ w["w_v"] @ block["attention"]["w_o"][head], gain @ w["w_q"] @ w["w_k"].T @ gain


@pytest.mark.parametrize(
    "heads, d_k, logit_scale", [(1, 16, "sqrt"), (4, 4, "qk_norm"), (16, 1, "learned"), (2, 3, "sqrt")]
)
def test_scores_are_those_of_whole_matrices(heads, d_k, logit_scale):
    params = model(3, heads, d_k, logit_scale=logit_scale)
    found = scores.compositions(params)
    norm = np.linalg.norm
    of = [(layer, head) for layer in range(3) for head in range(heads)]
    for source, a in enumerate(of):
        for target, b in enumerate(of):
            writes, (ov, qk) = whole(params, *a)[0], whole(params, *b)
            wanted = [norm(writes @ reads) / norm(writes) / norm(reads) for reads in (qk, qk.T, ov)]
            np.testing.assert_allclose(found.score[:, source, target], wanted, rtol=1e-10)


def test_a_planted_edge_of_each_kind_is_the_top_one():
    for kind, name in zip((Q, K, V), ("w_q", "w_k", "w_v"), strict=True):
        params = model(2, 4, 4, 32)
        params["block_1"]["attention"][name][:, 2] = params["block_0"]["attention"]["w_o"][3].T
        found = scores.compositions(params)
        later = np.where(scores.places(2, 4) == LATER, found.z, -np.inf)
        assert np.unravel_index(later.argmax(), later.shape) == (kind, 3, 6)
        assert found.p[kind, 3, 6] < 1e-4
    assert KINDS == ("q", "k", "v")


def haar(random, size):
    q, r = np.linalg.qr(random.normal(size=(size, size)))
    return q * np.sign(np.diag(r))


@pytest.mark.parametrize("d_model, d_k, fall", [(32, 1, 1), (32, 4, 1), (32, 4, 2), (64, 16, 1.6), (48, 16, 1)])
def test_the_tail_is_that_of_random_rotations(d_model, d_k, fall):
    random = np.random.default_rng(d_model + d_k)
    shares = fall ** -np.arange(float(d_k))
    shares /= shares.sum()
    squared = np.array([shares @ haar(random, d_model)[:d_k, :d_k] ** 2 @ shares for _ in range(4000)])
    sums = np.sum(shares**2), np.sum(shares**3)
    z, p = scores.tail(squared, (*sums, *sums), d_model)
    assert abs(z.mean()) < 0.06 and abs(z.std() - 1) < 0.06
    for alpha in (0.2, 0.05, 0.01):
        assert abs(np.mean(p < alpha) - alpha) < 4 * np.sqrt(alpha / 4000)


def test_at_d_k_1_the_law_is_that_of_a_cosine():
    from scipy.stats import beta

    squared, one = np.linspace(0.001, 0.9, 50), np.ones(())
    _, p = scores.tail(squared, (one,) * 4, 40)
    np.testing.assert_allclose(p, beta(0.5, 39 / 2).sf(squared), rtol=1e-9)


@pytest.mark.parametrize("heads, d_k", [(16, 1), (4, 4), (1, 16), (2, 8)])
def test_pairs_that_cannot_be_pass_at_the_nominal_rate(heads, d_k):
    passing = {SAME: [], EARLIER: [], LATER: []}
    for seed in range(40 if heads > 2 else 200):
        for place, rate in scores.rates(scores.compositions(model(3, heads, d_k, seed=seed)), 3, heads).items():
            passing[place].append(rate)
    for place in (EARLIER, LATER) if heads == 1 else (EARLIER, SAME, LATER):
        error = np.std(passing[place]) / np.sqrt(len(passing[place]))
        assert abs(np.mean(passing[place]) - 0.05) < 4 * error + 0.005, place
    assert heads > 1 or np.isnan(passing[SAME]).all()


def test_a_head_that_writes_nothing_composes_with_none():
    params = model()
    params["block_0"]["attention"]["w_o"][1] = 0
    found = scores.compositions(params)
    assert np.isnan(found.p[:, 1]).all() and np.isnan(found.p[V, :, 1]).all() and not np.isnan(found.p[Q, 0]).any()
    assert all(np.isfinite(rate) for rate in scores.rates(found, 2, 4).values())


def test_where_a_target_stands():
    assert scores.places(2, 1).tolist() == [[SAME, LATER], [EARLIER, SAME]]
