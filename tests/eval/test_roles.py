"""Measures of heads against slow ones, and against heads whose role is known."""

import numpy as np
import pytest

from eval.heads.roles import edges, effects, sums, texts
from eval.heads.roles.texts import Texts
from tests.eval import planted
from train.data.relations.language import Links


def random_texts(rng: np.random.Generator, count: int, length: int, vocab: int, relations: int) -> Texts:
    """Ragged texts with links at random, some queries with several keys, three texts a file."""
    tokens = rng.integers(1, vocab, (count, length + 1))
    lengths = rng.integers(length // 2, length + 1, count)
    rows = [
        (document, query, key, relation)
        for document in range(count)
        for query in range(1, lengths[document])
        for relation in range(relations)
        if rng.random() < 0.4
        for key in rng.choice(query + 1, min(query + 1, int(rng.integers(1, 3))), replace=False)
    ]
    links = Links(*np.array(rows, np.int32).T)
    return Texts(tokens, lengths, np.arange(count) // 3, links, tuple(map(str, range(relations))))


def of_plant(plant: planted.Plant) -> Texts:
    """The plant's documents, two a file; its links are relation 0."""
    documents = plant.documents
    tokens = np.pad(np.where(documents.targets >= 0, documents.targets, 0)[:, -1:], ((0, 0), (0, 0)))
    tokens = np.concatenate([documents.tokens, tokens], axis=1)
    rows = documents.links.astype(np.int32).reshape(-1, 3).T
    links = Links(*rows, np.zeros(rows.shape[1], np.int32))
    file = np.arange(len(tokens)) // 2
    return Texts(tokens, documents.lengths, file, links, ("planted",), documents.counts)


def measured(plant: planted.Plant, relation: bool = True):
    """Effects of every head on the plant's links (threshold .1), or its sums."""
    seen = of_plant(plant)
    found = sums.of_model(plant.config, plant.params, seen, sums.Profile())
    if not relation:
        return seen, found
    offset = texts.best_offset(seen.links)[0]
    at_offset = np.bincount(
        seen.file[seen.links.document[seen.links.query - seen.links.key == offset]], minlength=seen.num_files
    )
    return seen, effects.content(found, 0, at_offset, 0.1)


def others_than(plant: planted.Plant, values_LH: np.ndarray) -> np.ndarray:
    """The values of all heads but the plant and those that it reads from."""
    kept = np.ones(values_LH.shape, bool)
    for head in (plant.head, *plant.sources):
        kept[head] = False
    return values_LH[kept]


CONTENT = ("induction", "duplicate", "syntactic", "coreference")


@pytest.mark.parametrize("head", CONTENT)
def test_a_planted_head_of_content_is_called_and_no_other(head):
    plant = planted.planted(head, num_documents=64)
    seen, found = measured(plant)
    assert found.mass[plant.head] > 0.9
    assert found.effect[plant.head] == found.effect.max() > 0.7
    assert found.least[plant.head] > 0.1 and found.above[plant.head] < 1e-6
    assert others_than(plant, found.least).max() < 0.1
    assert others_than(plant, found.above).min() > 0.05


@pytest.mark.parametrize("head", CONTENT)
def test_taking_the_edge_out_of_the_plant_raises_the_loss_and_out_of_others_does_not(head):
    plant = planted.planted(head, num_documents=32)
    seen = of_plant(plant)
    layers, heads = plant.config.num_layers, plant.config.num_heads
    chosen = np.zeros((3, layers, heads), bool)
    chosen[0][plant.head] = True
    other = next(place for place in np.ndindex(layers, heads) if place not in (plant.head, *plant.sources))
    chosen[1][other] = True
    chosen[2][:] = True
    found = edges.without(plant.config, plant.params, seen, seen.links, chosen)
    rise = found.rise_SF.sum(axis=1) / found.queries_F.sum()
    assert rise[0] > 0.5 and abs(rise[1]) < 0.1 * rise[0] and rise[2] > 0.5


@pytest.mark.parametrize(("head", "name"), [("previous", effects.PREVIOUS), ("local", effects.LOCAL)])
def test_a_planted_positional_head_is_called_and_no_other(head, name):
    plant = planted.planted(head, num_documents=64)
    _, sums_ = measured(plant, relation=False)
    found = effects.positional(sums_, name, 0.5)
    assert found.effect[plant.head] == found.effect.max() and found.least[plant.head] > 0.5
    assert others_than(plant, found.least).max() < 0.5


@pytest.mark.parametrize("offset", [-2, -5])
def test_a_planted_offset_is_each_heads_own(offset):
    plant = planted.planted("offset", offset=offset, num_documents=64)
    seen, first = measured(plant, relation=False)
    own = effects.best_offsets(first, apart=(1, -1))
    assert own[plant.head] == -offset
    again = sums.of_model(plant.config, plant.params, seen, sums.Profile(own))
    found = effects.positional(again, effects.OFFSET, 0.5)
    assert found.effect[plant.head] == found.effect.max() and found.least[plant.head] > 0.5
    assert found.effect == pytest.approx(effects.at_best_offset(first, (1, -1)), rel=0.2)


def test_a_masked_models_planted_offset_ahead_is_its_next_token():
    plant = planted.planted("offset unseen", offset=1, num_documents=64)
    found = effects.positional(measured(plant, relation=False)[1], effects.NEXT, 0.5)
    assert found.effect[plant.head] == found.effect.max() and found.least[plant.head] > 0.5


@pytest.mark.parametrize(("head", "measure"), [("sink", "first"), ("rare", "rare")])
def test_a_planted_sink_and_a_planted_rare_head_stand_out_in_the_profile(head, measure):
    plant = planted.planted(head, num_documents=64)
    value = measured(plant, relation=False)[1].profile[measure].sum(axis=2)
    assert value[plant.head] == value.max() and value[plant.head] > 2 * others_than(plant, value).max()


@pytest.mark.parametrize("head", ["dead", "idle"])
def test_a_head_that_writes_nothing_is_inactive_whatever_it_looks_at(head):
    plant = planted.planted(head, num_documents=16)
    found = measured(plant, relation=False)[1]
    written = found.profile["output"].sum(axis=2) / found.tokens_F.sum()
    assert written[plant.head] < 1e-6 < others_than(plant, written).min()
    if head == "idle":
        assert effects.positional(found, effects.PREVIOUS, 0.5).least[plant.head] > 0.5


def test_a_broad_head_has_the_largest_entropy():
    plant = planted.planted("broad", num_documents=16)
    found = measured(plant, relation=False)[1]
    entropy = found.profile["entropy"].sum(axis=2) / found.tokens_F.sum()
    assert entropy[plant.head] > 0.99
