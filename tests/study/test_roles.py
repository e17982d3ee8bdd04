"""Roles of heads through a whole study: measured of restored cells, judged, shown, and left out where asked."""

import pandas as pd
import pytest

import main
from tests.study.tiny import HERE

pytestmark = pytest.mark.slow
SMALL = ("--config.heads.texts=16", "--config.heads.untrained=1")


def test_a_study_measures_roles_and_judges_them(study, capsys):
    assert study.run(*SMALL) == 0
    results = study.workdir / "results"
    roles, heads = (pd.read_parquet(results / f"{name}.parquet") for name in ("roles", "heads"))
    assert {*roles.role} == {"previous token", "fixed offset", "local", "duplicate", "induction"}
    assert {*roles.split} == {"tune", "test"} and roles[roles.split == "test"].untrained.notna().any()
    of_heads = heads[heads.split == "test"].groupby(["cell", "replica"]).size()
    assert {*of_heads} == {1, 16} and len(of_heads) == 4
    assert heads[heads.cell == "d016_h001"].distinct.isna().all()
    page = (study.workdir / "report" / "index.html").read_text()
    assert "What heads attend to" in page and "Heads take distinct functions" in page
    before = (results / "roles.parquet").read_bytes()
    assert study.run("--mode=eval", "--measure=roles") == 0
    assert (results / "roles.parquet").read_bytes() == before


def test_roles_measured_before_losses_wait_for_them(study):
    assert study.run(*SMALL, "--measure=roles") == 0
    assert not (study.workdir / "report" / "index.html").exists()
    assert study.run("--mode=eval", "--measure=losses") == 0
    assert "What heads attend to" in (study.workdir / "report" / "index.html").read_text()


def test_no_text_leaves_heads_unwatched_and_asking_for_roles_says_why(study, capsys):
    assert study.run() == 0
    assert not (study.workdir / "results" / "roles.parquet").exists()
    assert study.run("--mode=eval", "--measure=roles") == 2
    assert "heads.texts=0" in capsys.readouterr().err


def test_a_cell_whose_runs_all_diverged_has_no_roles(study, capsys):
    rate = ("--config.grid.learning_rates=1e30",)
    code = main.main([*study.arguments(*SMALL), *rate])
    assert code == 0 and HERE.exists()
    path = study.workdir / "results" / "roles.parquet"
    assert not path.exists() or pd.read_parquet(path).empty
