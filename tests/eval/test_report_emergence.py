"""The section on roles over training, on made-up tables."""

import numpy as np
import pandas as pd
import pytest

from eval.report import page
from eval.report.sections.grid import opening
from eval.report.sections.heads import emergence
from tests.eval.test_report import Parsed, evidence
from tests.eval.workdirs import build
from train.files import write_table

STEPS = (100, 200, 400)


def tables(workdir, table, called: bool):
    """Of the cell d016_h004: induction, whose effect comes at step 200 and whose gain at 400, in every model, and a
    role that nobody has."""
    rate = table.set_index("cell").learning_rate["d016_h004"]
    about = [
        {"cell": "d016_h004", "replica": f"r{seed}", "learning_rate": rate, "init_seed": seed, "data_seed": seed}
        for seed in range(3)
    ]
    over, ended = [], []
    for one in about:
        for role, effect, gain in (("induction", (0, 0.6, 0.8), (0, 0.1, 1.0)), ("nothing", (0, 0, 0), (0, 0, 0))):
            ended.append({**one, "split": "test", "role": role, "layer": 1, "head": 2, "effect": effect[-1],
                          "called": called and role == "induction"})  # fmt: skip
            for step, has, saves in zip(STEPS, effect, gain, strict=True):
                over.append({**one, "split": "test", "step": step, "role": role, "effect": has, "linked": 3.0 - saves,
                             "others": 3.0})  # fmt: skip
    write_table(workdir.results / "emergence.parquet", pd.DataFrame(over))
    write_table(workdir.results / "roles.parquet", pd.DataFrame(ended))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"), d_model=(16,), num_heads=(1, 4), learning_rates=(0.008,))


def test_it_shows_the_roles_that_some_model_has_and_which_comes_first(study, monkeypatch):
    tables(*study, called=True)
    monkeypatch.setattr(page, "found", lambda: [opening, emergence])
    text = page.write(evidence(*study), []).read_text()
    parsed = Parsed(text)
    assert parsed.tables["emergence"][1:] == [["d016_h004", "induction", "0.80", "+1.00", "200", "400", "3, 0, 0"]]
    assert 'aria-label="Effects of roles' in text and (study[0].report / "figures/emergence_d016_h004.svg").exists()


@pytest.mark.parametrize("called", [True, False])
def test_it_is_left_out_where_no_model_has_a_role_or_nothing_was_kept(study, called):
    tables(*study, called=False)
    if called:
        tables(*study, called=True)
        (study[0].results / "emergence.parquet").unlink()
    assert emergence.context(evidence(*study), []) is None


def test_half_way():
    rows = pd.DataFrame({"step": STEPS, "effect": (0.1, 0.5, 0.8), "linked": (3, 3, 2.0), "others": 3.0})
    assert emergence.half_way(rows) == (200, 400)
    none = rows.assign(effect=(0.1, 0, -0.2), linked=(3, 3, 2.98))
    assert np.isnan(emergence.half_way(none)).all()
    assert emergence.half_way(rows.assign(others=np.nan))[0] == 200
