"""A crossed study with runs again from perturbed weights, from its first step to its page."""

import pandas as pd
import pytest

CELL = "d016_h016"


@pytest.mark.slow
def test_a_crossed_study_compares_its_runs_and_counts_none_twice(study):
    crossed = ["--config.grid.seeds=crossed", "--config.grid.data_seeds=0,1", "--config.grid.repeats=2"]
    shape = ["--config.model.num_layers=2", "--config.grid.num_heads=16", "--config.train.windows=halves"]
    shape += ["--config.train.keep_checkpoints=8,16"]
    assert study.run(*crossed, *shape, "--config.heads.untrained=1", "--config.heads.texts=16") == 0
    results = study.workdir / "results"
    replicas, cells = (pd.read_parquet(results / f"{name}.parquet") for name in ("replicas", "cells"))
    assert len(replicas) == 2 * 4 and cells.seeds.tolist() == [4]
    pairs = pd.read_parquet(results / "stability.parquet")
    counts = pairs.groupby(["step", "layer"]).size()
    assert counts.eq(15).all() and sorted(counts.index) == [(step, layer) for step in (8, 16, 24) for layer in (0, 1)]
    assert pairs.cell.eq(CELL).all()
    early, pairs = (pairs[pairs.step == step] for step in (8, 24))
    again = pairs[(pairs.start == "drawn") & (pairs.other_start == "perturbed")]
    own = again[(again.init_seed == again.other_init) & (again.data_seed == again.other_data)]
    assert len(own) == 4 and (own.by_index > 0.999).all()
    assert own.by_index.min() > again.drop(own.index).by_index.max()
    assert (early.by_index.to_numpy() != pairs.by_index.to_numpy()).all()
    together = early[(early.init_seed == early.other_init) & (early.data_seed != early.other_data)]
    assert together.by_index.mean() > early[early.init_seed != early.other_init].by_index.mean()
    scored = pd.read_parquet(results / "composition.parquet")
    assert scored.replica.nunique() == 6 and len(scored) == 6 * 3 * 32 * 31
    page = (study.workdir / "report" / "index.html").read_text()
    assert 'id="stability"' in page and 'id="composition"' in page and "Content, heads by index" in page
