"""The planted heads do what they are planted for, before any measure is held to them."""

import functools

import numpy as np
import pytest

from tests.eval import tricky_attention
from tests.eval.planted import CIRCUITS, PLANTS, planted

PERFECT = [head for head in PLANTS if head not in ("broad", "dead")]
SERVES = {  # nats that closing it costs at its queries, at least
    "previous": 1.5,
    "offset": 1.5,
    "offset unseen": 1.2,
    "local": 0.6,
    "induction": 1.2,
    "duplicate": 1.2,
    "rare": 1,
    "syntactic": 1.5,
    "coreference": 1.4,
    "sink": 0.4,
    "query composition": 1.4,
    "value composition": 1.5,
}

model = functools.cache(planted)


def on_links(plant):
    """Attention on their links, of the queries that have any (L, H, queries)."""
    attention, (document, query, key) = plant.attention(), plant.documents.links.T
    on = np.zeros((*attention.shape[:3], attention.shape[3]))  # (L, N, H, T)
    for layer, head in np.ndindex(attention.shape[0], attention.shape[2]):
        np.add.at(on[layer, :, head], (document, query), attention[layer, document, head, query, key])
    return np.moveaxis(on, 2, 1)[:, :, plant.documents.linked]


@pytest.mark.parametrize("head", PERFECT)
def test_the_plant_looks_at_its_links_and_no_other_head_does(head):
    plant = model(head)
    mass = on_links(plant)
    assert mass[plant.head].min() > 0.9
    mass[plant.head] = 0
    assert mass.mean(-1).max() < 0.4


def test_local_and_broad_heads_look_at_theirs_alike():
    plant = model("local")
    at, seen = np.arange(3, 32), plant.attention()[plant.head[0]][:, plant.head[1]]
    assert all(abs(seen[:, at, at - back].mean() - 1 / 3) < 0.03 for back in (1, 2, 3))
    plant = model("broad")
    rows = plant.attention()[plant.head[0]][:, plant.head[1]]
    np.testing.assert_allclose(
        rows, np.broadcast_to(np.tril(np.ones((32, 32)) / np.arange(1, 33)[:, None]), rows.shape), rtol=1e-5
    )


@pytest.mark.parametrize("options", [dict(seed=1, ragged=True), dict(num_heads=8, d_k=8), dict(others=1.0)])
@pytest.mark.parametrize("head", ["previous", "induction"])
def test_the_plant_is_perfect_in_other_shapes(head, options):
    plant = planted(head, **options)
    assert on_links(plant)[plant.head].mean() > 0.9


def split(plant, *closed):
    """Nats that closing heads costs at queries with links, and at the others."""
    rise = plant.losses(plant.without(*closed)) - plant.losses()
    linked, asked = plant.documents.linked, plant.documents.targets >= 0
    return [rise[queries & asked].sum() / max(1, (queries & asked).sum()) for queries in (linked, ~linked)]


@pytest.mark.parametrize("head", SERVES)
def test_closing_the_plant_raises_the_loss_of_its_queries_and_of_no_others(head):
    plant = model(head)
    rise, elsewhere = split(plant, plant.head)
    assert rise > SERVES[head] and abs(elsewhere) < 0.02
    every = set(np.ndindex(plant.config.num_layers, plant.config.num_heads)) - {plant.head, *plant.sources}
    assert max(abs(split(plant, other)[0]) for other in every) < 0.05


@pytest.mark.parametrize("head", CIRCUITS)
def test_closing_a_source_raises_the_same_loss(head):
    plant = model(head)
    rise, elsewhere = split(plant, *plant.sources)
    assert rise > SERVES[head] - 0.3 and abs(elsewhere) < 0.02


def test_heads_that_do_nothing_or_harm():
    for head in ("idle", "dead"):
        assert not (model(head).losses(model(head).without(model(head).head)) - model(head).losses()).any()
    assert split(model("harmful"), model("harmful").head)[0] < -1
    assert -0.02 < split(mild := planted("harmful", said=0.2), mild.head)[0] < -0.003
    assert split(model("broad"), model("broad").head)[1] > 0.3


VARYING = ["induction", "duplicate", "rare", "syntactic", "coreference", "query composition"]


@pytest.mark.parametrize("head", VARYING)
def test_links_stand_at_varying_gaps(head):
    """No fixed offset finds half of them."""
    documents = model(head).documents
    document, query, key = documents.links.T
    found = [len(set(zip(document[query - key == gap], query[query - key == gap], strict=True))) for gap in range(32)]
    assert max(found) < 0.5 * documents.linked.sum() and len(documents.links) > 100


@pytest.mark.parametrize("head", PLANTS)
def test_documents_are_drawn_anew_with_each_seed(head):
    one, other = model(head).documents, planted(head, seed=5).documents
    assert (one.tokens != other.tokens).any()


def test_what_is_too_small_is_refused():
    with pytest.raises(ValueError, match="d_model=105, not 64"):
        planted("previous", d_model=64)
    with pytest.raises(ValueError, match="num_layers of at least 2"):
        planted("induction", num_layers=1)
    with pytest.raises(ValueError, match="no plant 'nothing'"):
        planted("nothing")
    with pytest.raises(ValueError, match="1 offsets need d_k of at least 3"):
        planted("previous", d_k=1)


@pytest.mark.parametrize(
    "make, mass",
    [
        (tricky_attention.saturates, 1),
        (tricky_attention.splits_with_itself, 0.5),
        (tricky_attention.falls_back, 1),
        (tricky_attention.offset_on_repeats, 1),
    ],
)
def test_attention_that_fools(make, mass):
    weights, documents = make(seed=0)
    seen = np.arange(32) < documents.lengths[:, None]
    np.testing.assert_allclose(weights.sum(-1)[:, 0][seen], 1)
    assert not weights[:, 0][~seen].any() and not np.triu(weights, 1).any()
    found = np.zeros(documents.tokens.shape)
    document, query, key = documents.links.T
    np.add.at(found, (document, query), weights[document, 0, query, key])
    np.testing.assert_allclose(found[documents.linked], mass)


def test_a_look_at_spaces_finds_some_duplicates():
    weights, documents = tricky_attention.looks_at_spaces(seed=0)
    document, query, key = documents.links.T
    found = weights[document, 0, query, key].sum() / documents.linked.sum()
    assert 0.2 < found < 0.6 and documents.links.shape[0] > 1000
