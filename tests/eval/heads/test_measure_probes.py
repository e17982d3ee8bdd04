"""Linear probes of planted heads, whose outputs tell their keys and nothing else, and of what no head knows."""

import dataclasses
import functools

import numpy as np
import pytest

from configs import default
from eval.heads.roles import probing, watched
from eval.heads.roles.effects import PREVIOUS
from eval.measure import probes
from mha.transformer import Transformer
from tests.eval import planted
from tests.eval.heads import restored
from tests.eval.heads.test_roles import of_plant
from train.data.relations.language import Links


def seen_of(head: str, **options):
    """A plant, and its documents in two halves, tune and test."""
    plant = planted.planted(head, num_documents=80, **options)
    seen = of_plant(plant)
    halves = []
    for first in (0, 40):
        kept = (seen.links.document >= first) & (seen.links.document < first + 40)
        links = Links(*(column[kept] for column in seen.links))
        parts = {name: getattr(seen, name)[first : first + 40] for name in ("tokens", "length", "file")}
        halves.append(dataclasses.replace(seen, **parts, links=links._replace(document=links.document - first)))
    return plant, *({watched.OWN: half} for half in halves)


@functools.cache
def rows_of(head: str):
    plant, tune, test = seen_of(head)
    return plant, probes.of_replica(plant.config, plant.params, tune, test).set_index(["role", "layer", "head"])


@pytest.mark.parametrize("head, role, least", [("previous", PREVIOUS, 0.95), ("induction", "planted", 0.8)])
def test_a_planted_heads_output_tells_its_key_and_that_of_others_in_its_layer_less(head, role, least):
    plant, rows = rows_of(head)
    rows = rows.loc[role]
    assert rows.accuracy[plant.head] == rows.accuracy.loc[plant.head[0]].max() > least
    others = rows.loc[plant.head[0]].drop([plant.head[1], probes.RESIDUAL])
    assert (rows.accuracy[plant.head] > others.accuracy + 0.2).all()
    assert rows.control[plant.head] < 0.4 and rows.accuracy[0, probes.RESIDUAL] < rows.chance.iloc[0] + 0.15
    assert rows.classes.iloc[0] == probing.CLASSES and rows.queries.iloc[0] >= 100


def test_a_later_layer_reads_second_hand_what_an_early_head_found():
    plant, rows = rows_of("induction")
    rows, (source,) = rows.loc[PREVIOUS], plant.sources
    assert rows.accuracy[source] > 0.95 > rows.accuracy[0, probes.RESIDUAL] + 0.5
    assert rows.accuracy[1, probes.RESIDUAL] > 0.9


def test_what_the_query_itself_tells_is_no_better_than_by_heart():
    """A duplicate's key has the query's token: there to be read in every layer, and so are the control's labels."""
    whole = rows_of("duplicate")[1].loc["planted", 0, probes.RESIDUAL]
    assert whole.accuracy > 0.95 and whole.accuracy - whole.control < 0.1


@pytest.mark.parametrize("width", [1, 16])
def test_a_probe_tells_what_is_there_and_else_goes_by_chance(width):
    draw = np.random.default_rng(width)
    label, wanted = draw.integers(0, 4, (2, 600))
    centres = 20 * draw.permutation(4)[:, None] + draw.normal(size=(4, width))
    noise = draw.normal(size=(2, 600, width))
    assert probing.accuracy(centres[label] + noise[0], label, centres[wanted] + noise[1], wanted) > 0.5 + 0.4 * (
        width > 1
    )
    found = [probing.accuracy(noise[0], draw.permutation(label), noise[1], wanted) for _ in range(4)]
    assert abs(np.mean(found) - 1 / 4) < 4 * np.sqrt(3 / 16 / 600)
    one = np.zeros(600, int)
    assert probing.accuracy(noise[0], one, noise[1], wanted) == np.mean(wanted == 0) == probing.chance(one, wanted)


def test_outputs_are_those_at_the_queries():
    plant, tune, _ = seen_of("induction", ragged=True)
    seen = tune[watched.OWN]
    draw = np.random.default_rng(0)
    document = draw.integers(0, 40, 50)
    query = draw.integers(0, seen.length[document])
    task = probing.Task(document, query, seen.tokens[document, query], document % 2)
    ((z, residual),) = probes.outputs(plant.config, plant.params, seen, [task])
    for number in (0, 49):
        row = seen.tokens[[document[number]], : seen.length[document[number]]]
        _, whole = Transformer(plant.config).apply({"params": plant.params}, row)
        for layer in (0, 1):
            np.testing.assert_allclose(z[number, layer], whole["heads"][layer][0, query[number]], atol=2e-4)
            np.testing.assert_allclose(residual[number, layer], whole["residual"][layer][0, query[number]], atol=2e-4)


def test_labels_are_ranks_of_the_latest_keys_token():
    tokens = np.array([[0, 5, 7, 5, 9, 5, 5], [0, 7, 7, 9, 5, 5, 9]])
    links = Links(*np.array([(0, 4, 1, 0), (0, 4, 2, 0), (0, 5, 3, 0), (1, 3, 2, 0), (1, 5, 3, 0), (1, 2, 2, 0)]).T)
    among = probing.classes(links, tokens)
    assert among.tolist() == [7, 5, 9]  # 7 on three latest keys, 5 and 9 on one each
    found = probing.task(links, tokens, among[:2], 100)
    assert [column.tolist() for column in found] == [[0, 0, 1, 1], [4, 5, 2, 3], [9, 5, 7, 9], [0, 1, 0, 0]]
    assert len(probing.task(links, tokens, among, 2).label) == 2


def test_control_labels_are_of_the_query_token_alone():
    draw = np.random.default_rng(0)
    tasks = [probing.Task(*[np.zeros(300, int)] * 2, draw.integers(0, 20, 300), draw.integers(0, 4, 300)) for _ in "ab"]
    given = probing.control_labels(*tasks, seed=1)
    pairs = {*zip(np.r_[tasks[0].token, tasks[1].token].tolist(), np.concatenate(given).tolist(), strict=True)}
    assert len(pairs) == 20 and len({label for _, label in pairs}) > 1


def test_rows_of_a_pack_are_of_its_judged_runs_on_test(monkeypatch):
    plant, tune, test = seen_of("syntactic")
    pack = restored.of(plant.config, [plant.params] * 2, diverged_at=[-1, 5])
    pack = dataclasses.replace(pack, config=default.get_config().to_dict())
    monkeypatch.setattr(watched, "texts_of", lambda _, split, most: [{"tune": tune, "test": test}[split]] * 2)
    assert probes.measure(pack, "tune", {"texts": 256}).empty
    rows = probes.measure(pack, "test", {"texts": 256})
    assert set(rows.replica) == {"lr0.01_i0_d0"} and [*rows] == probes.COLUMNS
    assert (rows.groupby("role").size() == 2 * (4 + 1)).all() and not rows.isna().any().any()
