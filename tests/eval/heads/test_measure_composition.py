"""The measurement of composition: its rows, and which models it is of."""

import dataclasses

import numpy as np

from eval.heads.composition import scores
from eval.measure import composition
from tests.eval.heads import restored
from tests.eval.heads.test_composition_scores import CONFIG, model


def test_a_row_a_pair_and_kind_of_every_model_that_did_not_diverge():
    params = [model(seed=seed) for seed in range(3)]
    pack = restored.of(CONFIG, params, diverged_at=[-1, 4, -1])
    assert composition.measure(pack, "tune", {}).empty
    rows = composition.measure(pack, "test", {})
    names = [replica.name for replica in pack.pack.replicas]
    assert set(rows.replica) == {names[0], names[2]} and len(rows) == 2 * 3 * (8 * 8 - 8)
    found = scores.compositions(params[2])
    one = rows[(rows.replica == names[2]) & (rows.kind == "k") & (rows.from_layer == 0) & (rows.from_head == 3)]
    one = one[(one.to_layer == 1) & (one.to_head == 2)].iloc[0]
    np.testing.assert_allclose(one[["score", "z", "p"]].astype(float), [part[1, 3, 6] for part in found], rtol=1e-5)
    assert one.place == "later"
    rates = (rows[rows.replica == names[2]].assign(passes=lambda each: each.p < 0.05)).groupby("place").passes.mean()
    assert rates.to_dict() == scores.rates(found, 2, 4)


def test_it_takes_two_layers():
    assert composition.lacks(None, CONFIG) == ""
    assert "takes two layers" in composition.lacks(None, dataclasses.replace(CONFIG, d_ff=(8,)))
