"""The planted heads do what they are planted for, before any measure is held to them."""

import functools

import numpy as np
import pytest

from tests.eval.planted import PLANTS, planted

PERFECT = ["previous", "offset", "offset unseen", "induction", "duplicate", "idle", "sink", "harmful"]
SERVES = {"previous": 1, "offset": 1, "offset unseen": 1, "induction": 1, "duplicate": 1, "sink": 0.1}  # nats

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
    assert mass.mean(-1).max() < 0.5


@pytest.mark.parametrize("options", [dict(seed=1, ragged=True), dict(num_heads=8, d_k=8), dict(others=1.0)])
@pytest.mark.parametrize("head", ["previous", "induction"])
def test_the_plant_is_perfect_in_other_shapes(head, options):
    plant = planted(head, **options)
    assert on_links(plant)[plant.head].mean() > 0.9


def split(plant, *closed):
    """Nats that closing heads costs at queries with links, and at the others."""
    rise = plant.losses(plant.without(*closed)) - plant.losses()
    linked, asked = plant.documents.linked, plant.documents.targets >= 0
    return rise[linked & asked].mean(), (rise[~linked & asked].mean() if (~linked & asked).any() else 0.0)


@pytest.mark.parametrize("head", SERVES)
def test_closing_the_plant_raises_the_loss_of_its_queries_and_of_no_others(head):
    plant = model(head)
    rise, elsewhere = split(plant, plant.head)
    assert rise > SERVES[head] and abs(elsewhere) < 0.02
    every = set(np.ndindex(plant.config.num_layers, plant.config.num_heads)) - {plant.head, *plant.sources}
    assert max(abs(split(plant, other)[0]) for other in every) < 0.05


def test_closing_a_source_of_induction_raises_the_same_loss():
    plant = model("induction")
    rise, elsewhere = split(plant, *plant.sources)
    assert rise > 1 and abs(elsewhere) < 0.02


def test_heads_that_do_nothing_or_harm():
    for head in ("idle", "dead"):
        assert not (model(head).losses(model(head).without(model(head).head)) - model(head).losses()).any()
    assert split(model("harmful"), model("harmful").head)[0] < -0.3


@pytest.mark.parametrize("head", PLANTS)
def test_documents_are_drawn_anew_with_each_seed(head):
    one, other = model(head).documents, planted(head, seed=5).documents
    assert (one.tokens != other.tokens).any()
    assert (np.diff(one.links[:, 1] - one.links[:, 2]) != 0).any() or head not in ("induction", "duplicate")


def test_what_is_too_small_is_refused():
    with pytest.raises(ValueError, match="d_model=105, not 64"):
        planted("previous", d_model=64)
    with pytest.raises(ValueError, match="num_layers of at least 2"):
        planted("induction", num_layers=1)
    with pytest.raises(ValueError, match="no plant 'nothing'"):
        planted("nothing")
    with pytest.raises(ValueError, match="1 offsets need d_k of at least 3"):
        planted("previous", d_k=1)
