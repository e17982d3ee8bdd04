"""The losses of a small study are those of before the fast paths, kernels, flags and loops (before.csv)."""

import pandas as pd
import pytest

from tests.study.tiny import HERE

pytestmark = pytest.mark.usefixtures("plain_page")
FLAGS = (
    "--config.model.num_layers=2",
    "--config.data.seq_len=64",
    "--config.grid.num_heads=1,4,16",
    "--config.train.steps=60",
    "--config.train.batch_size=8",
    "--config.train.warmup_steps=6",
    "--config.train.log_every=10",
    "--config.train.checkpoint_every=60",
)


@pytest.mark.parametrize("launcher", ["here", pytest.param("processes", marks=pytest.mark.slow)])
def test_losses_are_those_of_before_the_speed_up(launcher, study):
    """before.csv is of commit 0c89ba8 with --config.model.attention=reference, these flags and this text."""
    assert study.run(*FLAGS, f"--launcher={launcher}") == 0
    keys = ["cell", "init_seed", "split"]
    table = pd.read_csv(study.workdir / "results" / "replicas.csv")
    assert set(table.attention) == {"blockwise", "heads_minor"}
    found, before = (frame.set_index(keys).loss for frame in (table, pd.read_csv(HERE / "before.csv")))
    pd.testing.assert_series_equal(found, before, rtol=1e-5)
