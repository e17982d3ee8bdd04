"""The measurement of patching: what is planned, and its rows, of the circuit of induction."""

import dataclasses
import types

import numpy as np
import pandas as pd
import pytest

from eval.heads.composition import circuits
from eval.heads.composition.circuits import DIRECT, EDGE, RANDOM, SOURCE, TOP, Readers
from eval.measure import patching
from tests.eval.heads import restored
from tests.eval.heads.test_circuits import circuit
from train.data.corpora import Corpus


def corpus_of(documents) -> Corpus:
    tokens = np.concatenate([row[:size] for row, size in zip(documents.tokens, documents.lengths, strict=True)])
    names = tuple(f"file {i // 2}" for i in range(len(documents.lengths)))
    whole = {"train": (0, 0), "tune": (0, 0), "test": (0, len(names))}
    return Corpus(tokens, np.r_[0, np.cumsum(documents.lengths)], names, whole, "made up", "document")


@pytest.fixture(scope="module")
def rows():
    plant = circuit("k")
    pack = restored.of(plant.config, [plant.params] * 2, corpus=corpus_of(plant.documents), seeds=[(0, 0), (1, 1)])
    name = pack.pack.replicas[1].name
    roles = pd.DataFrame([(name, "induction", *plant.head, 0.9, True), (name, "induction", 1, -1, 0.9, False),
                          (name, "previous token", *plant.sources[0], 0.9, True),
                          (pack.pack.replicas[0].name, "induction", *plant.head, 0.01, False)],
                         columns=["replica", "role", "layer", "head", "effect", "called"])  # fmt: skip
    assert patching.measure_cell([pack], "tune", {"batch_size": 8}, {"roles": roles}).empty
    return patching.measure_cell([pack], "test", {"batch_size": 8}, {"roles": roles}), plant, name


def test_the_sources_of_induction_are_found_and_decide(rows):
    table, plant, name = rows
    assert set(table.replica) == {name} and set(table.role) == {"induction"} and table.document.nunique() == 12
    assert table.groupby(["what", "kind", "sources", "reader"]).size().eq(12).all()
    means = table.groupby(["what", "kind"])[["rise", "tokens"]].sum().pipe(lambda sums: sums.rise / sums.tokens)
    assert means[TOP, "k"] > 0.5 and abs(means[RANDOM, "k"]) < 0.05 and means[SOURCE, "k"] > 0.5
    assert set(table[table.decides].kind) == {"k"} and set(table[table.decides].what) == {TOP, RANDOM}
    (source,) = plant.sources
    assert set(table[table.what == EDGE].sources) == {f"{source[0]}.{source[1]}"}
    assert set(table[table.what == EDGE].reader) == {f"1.{plant.head[1]}"} == set(table.readers)


def test_what_is_planned():
    z = np.random.default_rng(0).normal(size=(3, 24, 24))
    z[1, 5, 16:18] = 9.0
    patches = circuits.plan(Readers("induction", 2, (1, 0)), z, np.ones((3, 8)))
    of = lambda what, decides=None: [p for p in patches if p.what == what and decides in (None, p.decides)]  # noqa: E731
    (top,) = of(TOP, True)
    assert top.condition.kind == "k" and len(top.condition.sources) == 4 and (0, 5) in top.condition.sources
    assert all(layer < 2 for patch in patches for layer, _ in patch.condition.sources)
    assert len(of(TOP)) == 3 and len(of(RANDOM)) == 15 and len(of(DIRECT)) == 1
    assert len(of(SOURCE)) == 4 and len(of(EDGE)) == 8
    assert all(not set(p.condition.sources) & set(top.condition.sources) for p in of(RANDOM, True))


def test_one_head_has_no_random_source():
    patches = circuits.plan(Readers("induction", 1, (0,)), np.zeros((3, 2, 2)), np.ones((2, 1)))
    assert {patch.what for patch in patches} == {TOP, DIRECT, SOURCE, EDGE}


def test_readers_are_of_the_layer_that_holds_most_of_a_role():
    effects = {(0, 3): 9.0, (1, 0): 0.3, (2, 1): 0.2, (2, 2): 0.4}
    assert circuits.readers("induction", effects) == Readers("induction", 2, (2, 1))
    assert circuits.readers("induction", {(0, 3): 0.9}) is None


def test_what_it_does_not_apply_to():
    config = types.SimpleNamespace(dose=types.SimpleNamespace(relations=()))
    model = circuit("k").config
    assert patching.lacks(config, model) == ""
    assert "masked" in patching.lacks(config, dataclasses.replace(model, causal=False))
    assert "takes two layers" in patching.lacks(config, dataclasses.replace(model, d_ff=(16,)))
