"""Circuits of two layers built by hand, one a kind of composition: scores name the edge and patching confirms it; of
models as drawn it confirms nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.composition import patching, scores
from eval.heads.composition.patching import Condition, Windows
from mha.transformer import ModelConfig, Transformer
from tests.eval.planted import Plant, planted

PLANTS = {"q": "query composition", "k": "induction", "v": "value composition"}


@functools.cache
def circuit(kind: str) -> Plant:
    """A model whose only way to tell the next word is that a head of layer 1 reads, for its `kind`, the word that a
    head of layer 0 copied from the position before."""
    return planted(PLANTS[kind])


def windows(documents) -> Windows:
    tokens = np.pad(documents.tokens, ((0, 0), (0, 1)))
    length, document = documents.lengths - 1, np.arange(len(documents.lengths))
    return Windows(tokens, length, document, patching.partners(length, document))


@pytest.mark.parametrize("kind", scores.KINDS)
def test_the_edge_is_the_top_one_and_patching_confirms_it_alone(kind):
    plant = circuit(kind)
    (source,), seen, heads = plant.sources, windows(plant.documents), plant.config.num_heads
    found = scores.compositions(plant.params)
    later = np.where(scores.places(2, heads) == scores.LATER, found.z, -np.inf)
    edge = scores.KINDS.index(kind), source[1], heads + plant.head[1]
    assert np.unravel_index(later.argmax(), later.shape) == edge and found.p[edge] < 1e-6
    every = [(0, head) for head in range(heads)]
    conditions = [Condition((one,), each) for each in scores.KINDS for one in every]
    conditions += [Condition((source,), kind, target=head) for head in range(heads)]
    conditions += [Condition((source,), kind, direct=True)]
    rise_C = patching.rises(plant.config, plant.params, seen, 1, conditions).sum(axis=1) / seen.length.sum()
    named = dict(zip(conditions, rise_C, strict=True))
    others = [rise for each, rise in named.items() if each.sources != (source,) or each.kind != kind]
    assert named[Condition((source,), kind)] > 0.5 and np.abs(others).max() < 0.05
    assert named[Condition((source,), kind, direct=True)] > 0.5
    alone = [named[Condition((source,), kind, target=head)] for head in range(heads)]
    assert alone[plant.head[1]] > 0.5 and np.abs(np.delete(alone, plant.head[1])).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("d_k", [1, 4, 64])
def test_models_as_drawn_are_confirmed_in_at_most_one_in_twenty(d_k):
    """A role's sources by .1 nats more than random ones, and a single edge by .01 nats, each by its lower limit over
    documents: 1,000 models, their heads' weights three times as large as drawn."""
    config = ModelConfig(17, 16, 16, 4, d_k, (16, 16), attention="reference")
    draws, limit = 1000, 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
    init = jax.jit(lambda seed: Transformer(config).init(jax.random.key(seed), jnp.zeros((1, 2), int))["params"])
    random, joint, single = np.random.default_rng(d_k), 0, 0
    for draw in range(draws):
        params = init(draw)
        for name in ("block_0", "block_1"):
            params[name]["attention"] = jax.tree.map(lambda leaf: 3 * leaf, params[name]["attention"])
        tokens = random.integers(0, 17, (24, 17))
        length, document = np.full(24, 16), np.arange(24)
        seen = Windows(tokens, length, document, patching.partners(length, document))
        z = scores.compositions(jax.device_get(params)).z[1][:4, 4:]
        top = patching.top_sources(z[:, [draw % 4]], 1)
        rivals = patching.random_sources(top, patching.output_norms(config, params, seen)[0], 5, draw)
        conditions = [Condition(((0, source),), "k") for source in range(4)]
        rise = patching.rises(config, params, seen, 1, [*conditions, Condition(((0, top[0]),), "k", draw % 4)])
        more = rise[top[0]] - np.mean([rise[one] for (one,) in rivals], axis=0)
        joint += lower(more / 16) > 0.1
        single += lower(rise[-1] / 16) > 0.01
    assert joint / draws <= limit and single / draws <= limit


def lower(values):
    """One-sided 95 % limit of the mean, t over documents."""
    from scipy.stats import t

    return values.mean() - t.ppf(0.95, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
