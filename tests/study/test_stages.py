"""Tuning, choice and fresh seeds, from the command line."""

import jax
import numpy as np
import pandas as pd
import pytest

from tests.study import tiny_config
from tests.study.test_resume import training_calls
from tests.study.tiny import CELLS, Study
from train import grid
from train.config import freeze
from train.data import corpora
from train.run import step
from train.run.program import Program

pytestmark = pytest.mark.usefixtures("plain_page")
PROTOCOL = (
    "--config.grid.tuning_seeds=7,8",
    "--config.grid.extensions=1",
    "--config.grid.learning_rates=.005,.01",
)


def test_a_study_in_stages(study, monkeypatch, capsys):
    """One cell alone waits for the other; then the rates extend for both; then the fresh seeds; then two more."""
    calls, compiled = training_calls(monkeypatch), []
    compile_ = Program._compile
    monkeypatch.setattr(Program, "_compile", lambda self, *rest: compiled.append(self) or compile_(self, *rest))
    assert study.run(*PROTOCOL, "--cells=d016_h001") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No rate is chosen before every cell has tried 2 rates; d016_h016 have not" in said
    assert calls == [("d016_h001", 4)] and study.state("d016_h001") == "tuned"
    assert "no table of cells" in said and not (study.workdir / "results" / "cells.csv").exists()

    compiled.clear()
    assert study.run(*PROTOCOL) == 0
    assert len(compiled) == len(CELLS), "one program a cell serves rates, extension, fresh seeds and the timing pass"
    said = " ".join(capsys.readouterr().out.split())
    assert "every cell also tries 0.02" in said
    assert calls[1:] == [("d016_h016", 4), *((name, 2) for name in CELLS), *((name, 2) for name in CELLS)]
    rows = study.rows()
    tuning = rows[rows.stage == "tuning"]
    assert set(tuning.split) == {"tune"} and set(tuning.init_seed) == {"7", "8"}
    assert set(rows[rows.stage == "fresh"].split) == {"tune", "test"}
    for name in CELLS:
        mine = rows[rows.cell == name]
        by_rate = mine[mine.stage == "tuning"].astype({"loss": float}).groupby("learning_rate").loss.mean()
        assert set(by_rate.index) == {"0.005", "0.01", "0.02"}
        assert set(mine[mine.stage == "fresh"].learning_rate) == {by_rate.idxmin()}
        assert study.state(name) == "done"

    before, documents = study.rows(), pd.read_parquet(study.workdir / "results" / "documents.parquet")
    calls.clear()
    assert study.run(*PROTOCOL, "--config.grid.init_seeds=0,1,2") == 0
    assert calls == [(name, 1) for name in CELLS]
    keys = ["cell", "learning_rate", "init_seed", "split"]
    pd.testing.assert_frame_equal(study.rows().merge(before[keys], on=keys), before)
    grown = pd.read_parquet(study.workdir / "results" / "documents.parquet")
    pd.testing.assert_frame_equal(
        grown[grown.init_seed != 2].sort_values([*keys, "document"], ignore_index=True),
        documents.sort_values([*keys, "document"], ignore_index=True),
        check_exact=True,
    )


@pytest.mark.slow
def test_fresh_seeds_train_with_the_better_scale_alone(study, monkeypatch):
    calls = training_calls(monkeypatch)
    scales = ("--config.grid.tuning_seeds=7", "--config.grid.extensions=0", "--config.grid.logit_scales=sqrt,qk_norm")
    assert study.run(*scales) == 0
    assert len(calls) == 4 + 2 and {size for _, size in calls[:4]} == {1} and {size for _, size in calls[4:]} == {2}
    rows = study.rows()
    tune = rows[rows.stage == "tuning"].astype({"loss": float}).set_index("cell").loss
    for shape in CELLS:
        winner = tune[[shape, f"{shape}_qk_norm"]].idxmin()
        judged = rows[(rows.stage == "fresh") & rows.cell.str.startswith(shape)]
        assert set(judged.cell) == {winner} and study.state(winner) == "done"
        (loser,) = {shape, f"{shape}_qk_norm"} - {winner}
        assert study.state(loser) == "passed_over" and winner in study.reason(loser)
    calls.clear()
    assert study.run(*scales) == 0 and calls == []


def test_a_tuning_seed_cannot_become_a_fresh_one(study, capsys):
    assert study.run(*PROTOCOL, "--config.grid.init_seeds=0,7") == 2
    assert "share [7]" in capsys.readouterr().err
    assert not (study.workdir / "cells").exists()


@pytest.mark.slow
def test_added_seeds_equal_those_of_one_long_run(study, tmp_path):
    """... to 1e-5: they train in a pack of another size, which rounds otherwise."""
    short = ("--config.grid.tuning_seeds=7", "--config.grid.extensions=0", "--config.grid.init_seeds=0,1")
    long = (*short[:2], "--config.grid.init_seeds=0,1,2,3")
    assert study.run(*short) == 0 and study.run(*long) == 0
    other = Study(study.text, tmp_path / "long")
    assert other.run(*long) == 0
    keys = ["cell", "learning_rate", "init_seed", "data_seed", "split"]
    grown, whole = (one.rows().astype({"loss": float}).set_index(keys).loss.sort_index() for one in (study, other))
    assert len(grown) == len(CELLS) * (1 + 2 * 4) and set(grown.index.get_level_values("init_seed")) == set("01237")
    pd.testing.assert_series_equal(grown, whole, rtol=1e-5, atol=0)
    documents = [
        pd.read_parquet(one.workdir / "results" / "documents.parquet").set_index([*keys, "document"]).loss_sum
        for one in (study, other)
    ]
    pd.testing.assert_series_equal(*(each.sort_index() for each in documents), rtol=1e-5, atol=0)


def test_a_seed_gives_every_cell_the_same_weights_outside_attention(text):
    """So that differences between cells are paired from step 0."""
    config = tiny_config.get_config(str(text))
    config.grid.num_heads = (1, 4, 16)
    config = freeze(config.to_dict())
    seeds = jax.numpy.array([0, 1])
    of_cells = [step.init(cell.model, config.train, seeds).params for cell in grid.cells_of(config, corpora.VOCAB_SIZE)]
    assert len(of_cells) == 3
    for params in of_cells:
        assert set(params) == {"embed", "positions", "block_0", "norm_final", "unembed"}
        for name in ("embed", "positions", "unembed"):
            assert jax.tree.all(jax.tree.map(np.array_equal, params[name], of_cells[0][name])), name
        for name in ("mlp_in", "mlp_out"):
            assert jax.tree.all(jax.tree.map(np.array_equal, params["block_0"][name], of_cells[0]["block_0"][name]))
        for leaf in jax.tree.leaves([params["embed"], params["block_0"]["mlp_in"]]):
            assert not np.array_equal(leaf[0], leaf[1]), "another seed, other weights"
