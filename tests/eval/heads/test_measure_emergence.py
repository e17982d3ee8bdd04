"""Roles over training: a planted head that comes between two checkpoints, beside the loss that it saves."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import default
from eval.heads.roles import edges, targets, texts, watched
from eval.heads.roles.effects import PREVIOUS
from eval.measure import emergence
from tests.eval import planted
from tests.eval.heads import restored
from tests.eval.heads.test_roles import of_plant
from train.config import freeze

CONFIG = default.get_config()
CONFIG.train.keep_checkpoints = (4, 7)


def faded(plant: planted.Plant, share: float) -> dict:
    """The plant's weights with that share of its head's queries."""
    params = jax.tree.map(np.array, plant.params)
    layer, head = plant.head
    params[f"block_{layer}"]["attention"]["w_q"][:, head] *= share
    return params


def followed(monkeypatch, plant: planted.Plant, **changes):
    """The rows of a pack of two replicas, one of which diverged, whose plant is not there at step 4, is weak at 7 and
    whole at 10."""
    seen, params = of_plant(plant), {4: faded(plant, 0), 7: faded(plant, 0.3), 10: plant.params}
    packs = {step: restored.of(plant.config, [each] * 2, diverged_at=[-1, 5]) for step, each in params.items()}
    end = dataclasses.replace(packs[10], config=CONFIG.to_dict(), **changes)
    monkeypatch.setattr(watched, "texts_of", lambda *_: [{watched.OWN: seen}] * 2)
    monkeypatch.setattr(type(end), "kept", [4, 7])
    monkeypatch.setattr(type(end), "at", lambda _, step: packs[step])
    return emergence.measure(end, "test", {"texts": 64}).set_index(["role", "step"])


@pytest.mark.parametrize("head", ["induction", "duplicate"])
def test_a_head_of_content_comes_as_the_loss_of_its_targets_falls_and_no_other_does(monkeypatch, head):
    plant = planted.planted(head, num_documents=48)
    rows = followed(monkeypatch, plant).loc["planted"]
    assert rows.index.tolist() == [4, 7, 10] and set(rows.replica) == {"lr0.01_i0_d0"}
    assert {*zip(rows.layer, rows["head"], strict=True)} == {plant.head} and set(rows.queries) == {rows.queries[4]}
    assert rows.effect[4] < 0.1 < 0.7 < rows.effect[10] == rows.largest[10] and rows.low[10] > 0.6
    assert rows.effect[4] < rows.effect[7] < rows.effect[10]
    fall, beside = rows.linked[4] - rows.linked[10], rows.others[4] - rows.others[10]
    assert fall > 0.9 and abs(beside) < fall / 4


def test_a_positional_role_costs_what_all_targets_do(monkeypatch):
    plant = planted.planted("previous", num_documents=24)
    rows = followed(monkeypatch, plant).loc[PREVIOUS]
    assert {*zip(rows.layer, rows["head"], strict=True)} == {plant.head}
    assert rows.effect[4] < 0.5 < 0.9 < rows.effect[10] and rows.others.isna().all()
    assert rows.linked[10] < rows.linked[4] - 1


def test_where_no_head_bears_a_role_none_comes(monkeypatch):
    plant = planted.planted("idle", num_documents=24)
    served = planted.planted("induction", num_documents=24)
    rows = followed(monkeypatch, plant._replace(documents=served.documents)).loc["planted"]
    assert rows.largest.max() < 0.1 and np.ptp(rows.linked) < 1e-4


def test_losses_of_targets_are_those_beside_the_edges():
    plant = planted.planted("duplicate", num_documents=24, ragged=True)
    seen = of_plant(plant)
    found = targets.losses(plant.config, plant.params, seen)
    assert np.isnan(found).sum() == (found.shape[1] - seen.length).sum() > 0
    none = np.zeros((1, plant.config.num_layers, plant.config.num_heads), bool)
    beside = edges.without(plant.config, plant.params, seen, seen.links, none)
    assert targets.split(found, seen.links) == pytest.approx((beside.linked, beside.others), rel=1e-5)
    every = texts.at_offsets(seen, (1,))
    assert np.isnan(targets.split(found, every)[1])


def test_what_it_takes():
    config = freeze(CONFIG.to_dict())
    assert emergence.lacks(config, None) == "" and emergence.settings(config)["steps"] == (4, 7)
    none = dataclasses.replace(config, train=dataclasses.replace(config.train, keep_checkpoints=()))
    assert "--config.train.keep_checkpoints=" in emergence.lacks(none, None)
