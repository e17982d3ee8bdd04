"""A measurement is one file: dropped into eval/measure it is found, run, resumed, merged and shown."""

import importlib
import json
import os
import sys

import numpy as np
import pandas as pd
import pytest

import eval.measure
from eval import measurements
from eval.restore import restore
from tests.study.test_faults import data_files, flip, newest
from tests.study.test_resume import training_calls
from tests.study.tiny import CELLS, assert_same_results

ONE, OTHER = CELLS
DONE, BAD_INPUT, SOME_CELL_FAILED = 0, 2, 3

NORMS = '''"""The length of each weight of a model."""

import jax
import numpy as np
import pandas as pd

IN_STUDY = False


def lacks(config, model):
    return "" if config.model.num_layers == 1 else "norms are of one layer."


def settings(config):
    return {"margin": config.claims.margin}


def measure(restored, split, chosen):
    rows = []
    for path, leaf in jax.tree.leaves_with_path(restored.params):
        norms = np.sqrt(np.square(np.asarray(leaf, np.float64)).reshape(len(leaf), -1).sum(axis=1))
        for replica, norm in zip(restored.pack.replicas, norms, strict=True):
            rows.append({"replica": replica.name, "weight": jax.tree_util.keystr(path), "norm": norm})
    return pd.DataFrame(rows)
'''
# Compares the packs of a cell, and needs what another measurement found of them.
SPREAD = '''"""How far apart the runs of a cell lie."""

import pandas as pd

IN_STUDY = False
NEEDS = ("norms", "losses")


def lacks(config, model):
    return "" if model.num_heads == 1 else "the spread is of one head."


def settings(config):
    return {}


def measure_cell(packs, split, chosen, needed):
    norms, losses = (needed[name].groupby("replica") for name in NEEDS)
    names = [replica.name for pack in packs for replica in pack.pack.replicas]
    assert set(norms.groups) == set(losses.groups) == {*names} and set(needed["norms"].split) == {split}
    total = norms.norm.sum()
    loss = losses.loss_sum.sum()
    return pd.DataFrame({"replica": names, "from_mean": [total[name] - total.mean() for name in names],
                         "loss": [loss[name] for name in names], "packs": len(packs)})
'''


@pytest.fixture
def drop(tmp_path, monkeypatch):
    """Puts a measurement where the package finds it, for this test."""
    folder = tmp_path / "more"
    folder.mkdir()
    monkeypatch.setattr(eval.measure, "__path__", [*eval.measure.__path__, str(folder)])
    dropped = []

    def give(name: str, source: str) -> None:
        assert name not in measurements.known()
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        dropped.append(name)

    yield give
    for name in dropped:
        sys.modules.pop(f"eval.measure.{name}", None)
        if hasattr(eval.measure, name):
            delattr(eval.measure, name)


def files_of(study):
    """Every file of the workdir, with the moment of its writing."""
    return {path: path.stat().st_mtime_ns for path in study.workdir.rglob("*") if path.is_file()}


def of_results(study, name) -> pd.DataFrame:
    return pd.read_parquet(study.workdir / "results" / f"{name}.parquet")


def rewrite(path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.usefixtures("plain_page")
def test_one_new_file_is_a_measurement(drop, done, quiet):
    """Its columns in results/, and nothing else changed."""
    drop("norms", NORMS)
    before = files_of(done)
    assert done.run("--mode=eval", "--measure=norms") == DONE
    found = of_results(done, "norms")
    assert list(found) == ["cell", "replica", "learning_rate", "init_seed", "data_seed", "split", "weight", "norm"]
    assert set(found.cell) == {*CELLS} and set(found.split) == {"tune", "test"} and set(found.init_seed) == {0, 1}
    restored = restore(done.cell(ONE), 0)
    embedding = np.linalg.norm(np.float64(restored.params["embed"]["embedding"][1]))
    mine = found[(found.cell == ONE) & (found.init_seed == 1) & (found.weight == "['embed']['embedding']")]
    assert np.allclose(mine.norm, embedding) and len(mine) == 2
    pd.testing.assert_frame_equal(pd.read_csv(done.workdir / "results" / "norms.csv"), found, check_dtype=False)
    now = files_of(done)
    added = {str(path.relative_to(done.workdir)) for path in now.keys() - before.keys()}
    assert added == {
        *(f"cells/{name}/norms_0.parquet" for name in CELLS),
        "results/norms.parquet",
        "results/norms.csv",
    }
    touched = {path.relative_to(done.workdir).parts[0] for path in before if now[path] != before[path]}
    assert touched <= {"results", "report", ".lock"}, "tables and the page are written anew, and no cell's"
    assert_same_results(done, quiet)


def test_the_page_names_a_measurement(drop, done):
    drop("norms", NORMS)
    assert done.run("--mode=eval", "--measure=norms") == DONE
    html = (done.workdir / "report" / "index.html").read_text()
    assert "norms" in html and "The length of each weight of a model." in html


@pytest.mark.usefixtures("plain_page")
def test_what_is_measured_is_not_measured_again(drop, done, capsys):
    """Until the checkpoint, or a setting that shapes it, is another; or its file is damaged."""
    drop("norms", NORMS)
    ask = ("--mode=eval", "--measure=norms")
    one, other = (done.cell(name) / "norms_0.parquet" for name in CELLS)

    def measured() -> tuple[list[str], list]:
        """The cells that the next command measures, and the moments of both files after it."""
        capsys.readouterr()
        assert done.run(*ask) == DONE
        said = capsys.readouterr().out
        return [name for name in CELLS if f"{name}: measuring norms" in said], [
            path.stat().st_mtime_ns for path in (one, other)
        ]

    cells, moments = measured()
    assert cells == [*CELLS]
    assert measured() == ([], moments), "nothing is there to do"

    done.change_packs(ONE, lambda packs: packs[0]["trained"].update(checkpoint="another"))
    cells, later = measured()
    assert cells == [ONE] and later[0] > moments[0] and later[1] == moments[1]
    assert measured() == ([], later)

    rewrite(done.workdir / "config.json", lambda record: record["config"]["claims"].update(margin=0.5))
    cells, again = measured()
    assert cells == [*CELLS] and all(new > old for new, old in zip(again, later, strict=True))
    assert measured() == ([], again)

    os.truncate(other, other.stat().st_size // 2)
    cells, mended = measured()
    assert cells == [OTHER] and mended[0] == again[0]
    assert set(of_results(done, "norms").cell) == {*CELLS}


@pytest.mark.usefixtures("plain_page")
def test_the_losses_of_another_checkpoint_are_measured_again(done, quiet, capsys):
    """The measurement of every study too: its file says which checkpoint it is of."""
    before = (done.cell(OTHER) / "documents_0.parquet").stat().st_mtime_ns
    done.change_packs(ONE, lambda packs: packs[0]["trained"].update(checkpoint="another"))
    assert done.run("--mode=eval") == DONE
    said = capsys.readouterr().out
    assert f"{ONE}: measuring losses" in said and f"{OTHER}: measuring" not in said
    assert (done.cell(OTHER) / "documents_0.parquet").stat().st_mtime_ns == before
    assert_same_results(done, quiet)


@pytest.mark.usefixtures("plain_page")
def test_one_that_needs_others_and_compares_packs(drop, done, capsys):
    """What it needs is measured first; a cell that it does not apply to is left out."""
    drop("norms", NORMS)
    drop("spread", SPREAD)
    assert done.run("--mode=eval", "--measure=spread") == DONE
    said = capsys.readouterr().out
    assert said.index(f"{ONE}: measuring norms") < said.index(f"{ONE}: measuring spread")
    assert f"{OTHER}: measuring spread" not in said and "measuring losses" not in said, "the losses are there"
    found, norms = of_results(done, "spread"), of_results(done, "norms")
    assert set(found.cell) == {ONE} and set(found.packs) == {1}
    total = norms[(norms.cell == ONE) & (norms.split == "test")].groupby("replica").norm.sum()
    mine = found[found.split == "test"].set_index("replica")
    assert np.allclose(mine.from_mean, (total - total.mean())[mine.index]) and (mine.from_mean != 0).all()
    losses = of_results(done, "documents")
    one = losses[(losses.cell == ONE) & (losses.split == "tune")].groupby("replica").loss_sum.sum()
    assert np.allclose(found[found.split == "tune"].set_index("replica").loss, one)
    moment = (done.cell(ONE) / "spread.parquet").stat().st_mtime_ns
    assert done.run("--mode=eval", "--measure=spread") == DONE
    assert "measuring" not in capsys.readouterr().out
    assert (done.cell(ONE) / "spread.parquet").stat().st_mtime_ns == moment


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--measure=nomrs", "--measure=nomrs is no measurement; did you mean norms?"),
        ("--measure=norms,nothing", "--measure=nothing is no measurement; "),
        ("--measure=relations", "--measure=relations does not apply here: relations are measured in a relations"),
        ("--measure=never", "--measure=never does not apply here: it is not of this world."),
    ],
)
def test_one_that_cannot_be_is_refused_before_anything_runs(flag, said, drop, done, capsys):
    drop("norms", NORMS)
    drop("never", NORMS.replace('return "" if config.model.num_layers == 1 else "norms are of one layer."',
                                'return "it is not of this world."'))  # fmt: skip
    before = files_of(done)
    assert done.run("--mode=eval", flag) == BAD_INPUT
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.err.rstrip().endswith((".", "?"))
    assert captured.out == "" and files_of(done) == before


@pytest.mark.usefixtures("plain_page")
def test_a_damaged_checkpoint_is_said_and_a_study_mends_it(drop, done, quiet, capsys, monkeypatch):
    drop("norms", NORMS)
    flip(data_files(newest(done, ONE))[0])
    calls = training_calls(monkeypatch)
    assert done.run("--mode=eval", "--measure=norms") == SOME_CELL_FAILED
    assert done.state(ONE) == "failed" and "SHA-256 differs" in done.reason(ONE)
    assert "--mode=study trains this cell again" in done.reason(ONE) and done.state(OTHER) == "done"
    assert f"Not done: {ONE}" in capsys.readouterr().out
    assert set(of_results(done, "norms").cell) == {OTHER} and not calls
    assert done.run("--measure=norms") == DONE, "the study itself, asked for this measurement"
    assert calls == [(ONE, 2)] and set(of_results(done, "norms").cell) == {*CELLS}
    assert done.run() == DONE
    assert_same_results(done, quiet)


@pytest.mark.usefixtures("plain_page")
def test_a_fault_in_one_stays_in_its_cell(drop, done, quiet):
    broken = NORMS.replace(
        "    rows = []\n", "    if restored.pack.model.num_heads == 1:\n        1 / 0\n    rows = []\n"
    )
    drop("norms", broken)
    assert done.run("--mode=eval", "--measure=norms") == SOME_CELL_FAILED
    assert done.state(ONE) == "failed" and done.reason(ONE) == "division by zero" and done.state(OTHER) == "done"
    assert "ZeroDivisionError" in (done.cell(ONE) / "error.txt").read_text()
    assert set(of_results(done, "norms").cell) == {OTHER}
    assert done.run() == DONE and done.state(ONE) == "done", "the study does not ask for it"
    assert_same_results(done, quiet)


@pytest.mark.usefixtures("plain_page")
def test_a_fault_in_one_leaves_the_others(drop, done, quiet):
    """Also those that come behind it by name; not those that need it."""
    drop("a_broken", NORMS.replace("IN_STUDY = False", "IN_STUDY = True").replace("    rows = []\n", "    1 / 0\n"))
    drop(
        "b_needy", SPREAD.replace('("norms", "losses")', '("a_broken",)').replace("IN_STUDY = False", "IN_STUDY = True")
    )
    for name in CELLS:
        for path in done.cell(name).glob("documents_*.parquet"):
            path.unlink()
    assert done.run("--mode=eval") == SOME_CELL_FAILED
    assert {done.reason(name) for name in CELLS} == {"division by zero"}
    pd.testing.assert_frame_equal(of_results(done, "documents"), of_results(quiet, "documents"))
    assert not list(done.workdir.rglob("b_needy*"))


@pytest.mark.usefixtures("plain_page")
def test_settings_are_compared_as_they_are_stored(drop, done):
    drop("norms", NORMS.replace('{"margin": config.claims.margin}', '{"seeds": config.grid.init_seeds}'))
    for _ in range(2):
        assert done.run("--mode=eval", "--measure=norms") == DONE
        path = done.cell(ONE) / "norms_0.parquet"
        moments = path.stat().st_mtime_ns
    assert done.run("--mode=eval", "--measure=norms") == DONE and path.stat().st_mtime_ns == moments


@pytest.mark.usefixtures("plain_page")
@pytest.mark.parametrize("change", [('"replica"', '"run"'), ("replica.name", '"nobody"')])
def test_rows_of_no_run_are_refused(drop, done, change):
    drop("norms", NORMS.replace(*change))
    assert done.run("--mode=eval", "--measure=norms") == SOME_CELL_FAILED
    assert "the measurement norms must give a column `replica` of the replicas' names" in done.reason(ONE)


@pytest.mark.parametrize("mode", ["status", "report", "train", "data"])
def test_where_nothing_is_measured_none_is_asked_for(done, mode, capsys):
    assert done.run(f"--mode={mode}", "--measure=losses") == BAD_INPUT
    assert "--measure=losses is for --mode=study and --mode=eval; drop it." in capsys.readouterr().err
