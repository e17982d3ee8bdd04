"""Runs that train on without heads: cells like others, restored, measured, judged, and trained once."""

import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from eval.heads.importance import engine, orders
from eval.restore import restore
from tests.study.tiny import Study
from train.exit_codes import DONE
from train.study import recovery
from train.workdir import CellFolder

CELL = "d016_h004"
ASKED = ("--config.grid.num_heads=4", "--config.grid.init_seeds=0,1,2,3,4", "--config.grid.tuning_seeds=100,101")
ASKED += ("--config.pruning.orders=gradient,random_within_layers", "--config.pruning.tuning_orders=gradient")
ASKED += ("--config.pruning.recovery_steps=6", "--config.pruning.shares=0.5,0.7", "--config.claims.launches=0")


def test_heads_that_are_off_add_nothing():
    draw = np.random.default_rng(0)
    attention = {"w_v": draw.normal(size=(8, 4, 2)), "w_o": draw.normal(size=(4, 2, 8)), "w_q": np.ones((8, 4, 2))}
    params = {"block_0": {"attention": attention, "mlp": 1}, "block_1": {"attention": dict(attention)}}
    off = recovery.without(params, [(0, 1), (0, 3)])
    for name, axis in (("w_v", 1), ("w_o", 0)):
        zero = [not np.take(off["block_0"]["attention"][name], head, axis=axis).any() for head in range(4)]
        assert zero == [False, True, False, True] and params["block_0"]["attention"][name].all()
    assert off["block_1"] is params["block_1"] and off["block_0"]["attention"]["w_q"].all()


@pytest.mark.slow
def test_a_study_trains_on_without_heads(text, tmp_path, capsys):
    study = Study(text, tmp_path / "run")
    assert study.run(*ASKED) == DONE
    rows = pd.read_csv(study.workdir / "results" / "replicas.csv")
    counts = rows[rows.split == "tune"].groupby("stage").size()
    kinds = ("gradient", "random_within_layers")
    wanted = {"tuning": 2, "fresh": 5, "unpruned": 5, "from_scratch_gradient_3": 5, "pruned_gradient_2": 5}
    wanted |= {"pruned_gradient_3": 7, **{f"pruned_{kinds[1]}_{count}": 5 for count in (2, 3)}}
    assert counts.to_dict() == wanted
    assert pd.read_csv(study.workdir / "results" / "cells.csv").seeds.tolist() == [5], "no part of the table of cells"

    folder = CellFolder(study.cell(CELL))
    closed = json.loads(folder.closed.read_text())
    restored = {index: restore(folder.path, index) for index in range(len(folder.packs()))}
    drawn = {run.name: (pack, row) for pack in restored.values() for row, run in enumerate(pack.pack.replicas)}
    for pack in restored.values():
        for row, run in enumerate(pack.pack.replicas):
            w_o = np.asarray(pack.params["block_0"]["attention"]["w_o"][row])
            off = {head for head in range(4) if not w_o[head].any()}
            assert off == {head for _, head in closed.get(run.name, [])}, "what is off stays off in training"
            assert pack.step == (6 if recovery.goes_on(run) else 24)
    pruned = next(run for pack in restored.values() for run in pack.pack.replicas if run.start == "pruned_gradient_3")
    parent, row = drawn[recovery.parent(pruned).name]
    own = {name: np.asarray(leaf) for name, leaf in parent.params["block_0"]["attention"].items()}
    begun = recovery.without({"block_0": {"attention": {n: leaf[row] for n, leaf in own.items()}}}, closed[pruned.name])
    after, place = drawn[pruned.name]
    moved = np.abs(
        np.asarray(after.params["block_0"]["attention"]["w_q"][place]) - begun["block_0"]["attention"]["w_q"]
    )
    assert 0 < moved.max() < 0.1, "a few steps from its parent's weights"

    claims = {claim["id"]: claim for claim in json.loads((study.workdir / "results" / "claims.json").read_text())}
    assert "All heads off cost" in claims["C6"]["sentence"] or "of source files" in claims["C6"]["sentence"].lower()
    before = folder.packs()
    capsys.readouterr()
    assert study.run(*ASKED) == DONE
    assert folder.packs() == before and "measuring" not in capsys.readouterr().out


def test_gates_and_weights_agree():
    """A head whose w_v and w_o are zero gives what a closed gate gives."""
    from tests.eval.heads.test_engine import made

    model, params, columns = made(dtype="float32", d_ff=(12,))
    off = recovery.without(
        {name: {**own} if name.startswith("block") else own for name, own in params.items()}, [(0, 2)]
    )
    masked = engine.losses(model, params, columns, jnp.asarray(orders.gates(model, [(0, 2)])))
    np.testing.assert_allclose(engine.losses(model, off, columns), masked, rtol=1e-6)
