"""A study of doses of relations is a study like any other: its cells, stops, modes and measurements."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import main
from eval import study as whole_study
from eval.restore import restore
from tests.study.test_resume import training_calls
from tests.study.test_workers import of_study
from tests.study.tiny import HERE
from train import files, grid
from train.config import freeze
from train.data.relations import doses
from train.hosts import slots, workers
from train.losses import answers
from train.workdir import CellFolder, read_json, read_table

PROCESSES = ("--launcher=processes", "--workers=2")
SMALLEST = (
    "--config=configs/relations.py",
    "--config.train.steps=40",
    "--config.train.batch_size=4",
    "--config.train.warmup_steps=5",
    "--config.dose.look_every=20",
    "--config.dose.documents=8",
    "--config.heads.texts=0",
)
SHRUNK = (
    *SMALLEST,
    "--config.grid.d_model=16",
    "--config.grid.learning_rates=0.003,0.01",
    "--config.grid.init_seeds=0,1",
    "--config.dose.relations=1,6",
)
ONE_HEAD = (*SHRUNK, "--config.grid.num_heads=1")
# One cell that tunes nothing.
ALONE = (
    *SMALLEST,
    "--config.grid.num_heads=1",
    "--config.grid.learning_rates=0.01",
    "--config.grid.tuning_seeds=()",
    "--config.grid.extensions=0",
    "--config.dose.relations=1",
)
ONE, SIX = CELLS = ("d016_h001_r1", "d016_h001_r6")
RUNS = ["cell", "relations", "stage", "learning_rate", "seed"]  # what names a run in dose.csv
LOSSES = ["loss", "worst"]
OFTEN = ("--config.train.checkpoint_every=10",)


def run(workdir: pathlib.Path, *words: str) -> int:
    return main.main([*words, f"--workdir={workdir}"])


def folder(workdir: pathlib.Path, name: str) -> CellFolder:
    return CellFolder(workdir / "cells" / name)


def names_of(workdir: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (workdir / "cells").iterdir())


def table(workdir: pathlib.Path) -> pd.DataFrame:
    return pd.read_csv(workdir / "results" / "dose.csv").sort_values(RUNS, ignore_index=True)


def moments(workdir: pathlib.Path) -> dict[pathlib.Path, int]:
    """When each file of a cell was written."""
    return {path: path.stat().st_mtime_ns for path in (workdir / "cells").rglob("*") if path.is_file()}


def left_behind(workdir: pathlib.Path) -> dict:
    """Everything of a study but what a clock or an allocator fills, every digit."""
    found = {name: (workdir / "results" / name).read_text() for name in ("dose.csv", "relations.csv")}
    for name in names_of(workdir):
        place = folder(workdir, name)
        found[name, "state"], found[name, "looks"] = place.status(), place.looks.read_text()
        found[name, "metrics"] = place.metrics.read_text()
        found[name, "packs"] = [
            (record["replicas"], record["model"], *(record["trained"][of] for of in ("step", "checkpoint", "outcomes")))
            for record in place.packs()
        ]
    return found


def config_of(workdir: pathlib.Path):
    return freeze(read_json(workdir / "config.json")["config"])


def draw_no_page(monkeypatch) -> None:
    """It takes longer than the rest of most tests."""

    def write(evidence, verdicts):
        files.write_text(evidence.workdir.report / "index.html", "A page.")
        return evidence.workdir.report / "index.html"

    monkeypatch.setattr("eval.report.page.write", write)


@pytest.fixture
def plain_page(monkeypatch):
    draw_no_page(monkeypatch)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of a cell at two doses: one trained in this process, then the other in a worker. Not to be
    written to."""
    workdir = tmp_path_factory.mktemp("doses") / "workdir"
    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        assert run(workdir, *ONE_HEAD, "--launcher=here", f"--cells={ONE}") == 0
    before = moments(workdir)
    assert names_of(workdir) == [ONE] and folder(workdir, ONE).status()["state"] == "done"
    assert run(workdir, *ONE_HEAD, *PROCESSES) == 0
    assert before.items() <= moments(workdir).items(), "what is done stays as it is"
    return workdir


@pytest.fixture
def done(study, tmp_path):
    """A copy of the finished study."""
    return copied(study, tmp_path / "workdir")


def copied(study: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
    subprocess.run(["cp", "-a", study, workdir], check=True)  # with the moments of writing
    return workdir


def check_tables(workdir: pathlib.Path, shapes: set[str]) -> None:
    found, cells = table(workdir), {f"{shape}_r{dose}" for shape in shapes for dose in (1, 6)}
    assert set(found.cell) == shapes and set(found.relations) == {1, 6}
    assert set(found.stage) == {"tune", "fresh"} and found[LOSSES].notna().all(axis=None)
    tuned, fresh = (found[found.stage == stage] for stage in ("tune", "fresh"))
    assert set(tuned.seed) == {100, 101} and set(fresh.seed) == {0, 1}
    for _, mine in tuned.groupby(["cell", "relations"]):
        assert {0.003, 0.01} < set(mine.learning_rate) and len(mine) == 2 * 3, "the edge is extended once"
    for _, mine in fresh.groupby(["cell", "relations"]):
        assert len(set(mine.learning_rate)) == 1 and len(mine) == 2
    measured = pd.read_csv(workdir / "results" / "relations.csv")
    assert set(measured.cell) == cells == {*names_of(workdir)}
    assert set(measured.split) == {"tune", "test"} and set(measured[measured.split == "test"].init_seed) == {0, 1}
    assert {json.loads(path.read_text())["state"] for path in workdir.glob("cells/*/status.json")} == {"done"}
    assert {one["id"] for one in read_json(workdir / "results" / "claims.json")} == {"C4a", "C4b"}
    html = (workdir / "report" / "index.html").read_text()
    assert "C4a" in html and "<svg" in html


def test_its_tables_and_its_page(study):
    check_tables(study, {"d016_h001"})


def test_it_has_no_corpus_and_the_fingerprint_is_that_of_its_languages(study):
    config = config_of(study)
    assert not (study / "data").exists()
    of_languages = doses.fingerprint(config.data, (1, 6), (0, 1, 100, 101))
    assert read_json(study / "config.json")["data_fingerprint"] == of_languages
    assert of_languages != doses.fingerprint(config.data, (1, 6), (0, 1, 100))


def test_a_worker_has_one_core_and_this_process_all(study):
    for name, threads in {ONE: slots.threads(), SIX: slots.threads_in_slot("cpu")}.items():
        assert {record["environment"]["threads"] for record in folder(study, name).packs()} == {threads}
    assert not of_study(study)


def check_looks(workdir: pathlib.Path, name: str, exact: bool) -> None:
    """Every pack opens, and each of its runs gives the loss of its last look."""
    place, config = folder(workdir, name), config_of(workdir)
    records = place.packs()
    assert len(records) == 3, "tuning seeds, the extended rate and fresh seeds"
    last = {line["replica"]: line for line in map(json.loads, place.looks.read_text().splitlines())}
    for record in records:
        restored = restore(place.path, record["index"])
        assert restored.corpus is None and restored.study == config and restored.cell == name
        assert restored.step == record["trained"]["step"]
        replicas = restored.pack.replicas
        split = "tune" if grid.chooses(replicas[0], config) else "test"
        seeds = [replica.data_seed for replica in replicas]
        found = answers.of_seeds(restored.pack.model, restored.params, config, restored.pack.dose, split, seeds)
        for replica, now, ended in zip(replicas, found, record["trained"]["outcomes"], strict=True):
            look = last[replica.name]
            assert look["loss"] == ended["loss"] and look["relations"].keys() == now["relations"].keys()
            assert now["loss"] == (look["loss"] if exact else pytest.approx(look["loss"], rel=1e-5))
            for relation, loss in look["relations"].items():
                assert now["relations"][relation] == (loss if exact else pytest.approx(loss, rel=1e-4))


@pytest.mark.parametrize("name", CELLS)
def test_every_pack_is_restored_with_its_last_looks(name, study):
    """To the bit where as many cores restore it as trained it."""
    check_looks(study, name, exact=name == ONE or slots.threads() == 1)


def test_what_is_measured_is_what_was_looked_at(study):
    """Of each run's own split, the losses of its last look; and of the runs, dose.csv has the same."""
    runs, measured = table(study), pd.read_csv(study / "results" / "relations.csv")
    whole = measured[measured.relation == "relational bits"]
    for row in runs.itertuples():
        mine = whole[(whole.cell == f"{row.cell}_r{row.relations}") & (whole.learning_rate == row.learning_rate)]
        (one,) = mine[(mine.init_seed == row.seed) & (mine.split == ("tune" if row.stage == "tune" else "test"))].excess
        assert one == pytest.approx(row.loss, abs=1e-12)
        assert row.shortcut > 0


@pytest.mark.usefixtures("plain_page")
@pytest.mark.parametrize("launcher", [("--launcher=here",), PROCESSES])
def test_a_second_start_trains_and_measures_nothing(launcher, study, done, monkeypatch):
    calls = training_calls(monkeypatch)
    monkeypatch.setattr(workers, "_Worker", None)
    before = moments(done)
    assert run(done, *ONE_HEAD, *launcher) == 0
    assert not calls
    assert moments(done) == before
    assert left_behind(done) == left_behind(study)


@pytest.mark.usefixtures("plain_page")
def test_eval_measures_what_is_not_there_and_nothing_twice(study, done, capsys):
    measured, before = folder(done, ONE).path / "relations.parquet", moments(done)
    measured.unlink()
    (done / "results" / "relations.csv").unlink()
    assert run(done, "--mode=eval", "--launcher=here") == 0
    said = capsys.readouterr().out
    assert said.count("measuring relations") == 1 and f"{ONE}: measuring relations" in said
    assert {path for path, moment in moments(done).items() if moment != before[path]} == {measured}
    assert left_behind(done) == left_behind(study)
    assert run(done, "--mode=eval", "--launcher=here") == 0
    assert "measuring" not in capsys.readouterr().out


@pytest.mark.usefixtures("plain_page")
def test_a_damaged_checkpoint_is_said_by_eval_and_mended_by_a_study(study, done, capsys):
    place = folder(done, ONE)
    (place.path / "relations.parquet").unlink()
    newest = max(place.checkpoints(2).iterdir(), key=lambda path: int(path.name))
    (newest / "_CHECKPOINT_METADATA").unlink()
    assert run(done, "--mode=eval", "--launcher=here") == whole_study.SOME_CELL_FAILED
    assert place.status()["state"] == "failed" and "--mode=study trains this cell again" in place.status()["reason"]
    assert f"Not done: {ONE}" in capsys.readouterr().out and folder(done, SIX).status()["state"] == "done"
    assert run(done, *ONE_HEAD, "--launcher=here") == 0
    assert left_behind(done) == left_behind(study)


def test_status_and_report(study, done, capsys):
    assert run(done, "--mode=status") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in CELLS) and said.count("done") == len(CELLS)
    page = done / "report" / "index.html"
    before = page.read_bytes()
    page.unlink()
    assert run(done, "--mode=report") == 0
    assert page.read_bytes() == before and left_behind(done) == left_behind(study)


@pytest.mark.parametrize(("asked", "meant"), [("d016_h001", CELLS), (SIX, (SIX,)), (f"{ONE},d016_h001", CELLS)])
def test_cells_names_a_shape_or_one_dose_of_it(asked, meant, study, capsys):
    assert run(study, "--mode=status", f"--cells={asked}") == 0
    said = capsys.readouterr().out
    assert tuple(name for name in CELLS if name in said) == meant


def test_a_dose_that_is_not_of_the_grid(study, capsys):
    assert run(study, "--mode=status", "--cells=d016_h001_r4") == 2
    assert "'d016_h001_r4', which is not in the grid; did you mean" in capsys.readouterr().err


@pytest.mark.usefixtures("plain_page")
def test_the_settings_of_a_loop_are_obeyed(tmp_path):
    """log_every, checkpoint_every, profile_steps and a single rate without tuning seeds."""
    flags = (
        "--config.grid.d_model=16",
        "--config.grid.init_seeds=3",
        "--config.train.log_every=7",
        "--config.train.checkpoint_every=10",
        "--config.train.profile_steps=10,12",
    )
    assert run(tmp_path / "workdir", *ALONE, *flags, "--launcher=here") == 0
    place = folder(tmp_path / "workdir", ONE)
    assert [json.loads(line)["step"] for line in place.metrics.read_text().splitlines()] == [0, 7, 14, 21, 28, 35, 39]
    assert sorted(int(path.name) for path in place.checkpoints(0).iterdir()) == [30, 40], "the newest two are kept"
    assert [json.loads(line)["step"] for line in place.looks.read_text().splitlines()] == [20, 40]
    assert any(path.is_file() for path in place.profile(0).rglob("*"))
    (record,) = place.packs()
    (outcome,) = record["trained"]["outcomes"]
    assert (outcome["steps"], outcome["why"]) == (40, "capped") and record["dose"] == 1
    found = table(tmp_path / "workdir")
    assert list(found.stage) == ["fresh"] and list(found.learning_rate) == [0.01]


STARTS = ("hand_built", "no_attention", "mlp_first")


@pytest.mark.slow
def test_a_claim_asks_for_runs_by_hand(tmp_path):
    """C4b, of six relations that one head has not learnt from drawn weights, though dose.starts names no start; the
    next start of the study asks for nothing more."""
    flags = ("--config.grid.num_heads=1", "--config.grid.learning_rates=0.0001", "--config.grid.tuning_seeds=()")
    flags += ("--config.grid.extensions=0", "--config.grid.init_seeds=0,1", "--config.dose.relations=6")
    workdir = tmp_path / "workdir"
    assert run(workdir, *SMALLEST, *flags, "--launcher=here") == 0
    assert table(workdir).stage.value_counts().to_dict() == {"fresh": 2, "hand_built": 2}
    assert table(workdir).groupby("stage").worst.max()["hand_built"] < 0.05
    place = folder(workdir, "d064_h001_r6")
    assert place.status()["state"] == "done" and not read_table(place.measured("relations")).empty
    before = moments(workdir)
    assert run(workdir, *SMALLEST, *flags, "--launcher=here") == 0 and moments(workdir) == before


@pytest.mark.slow
def test_the_starts_that_the_config_asks_for_appear(tmp_path):
    """Each in a pack of its own, at its own rate; two layers and d_model 32 are the least that all three need."""
    flags = (
        "--config.grid.d_model=32",
        "--config.grid.init_seeds=3",
        "--config.model.num_layers=2",
        f"--config.dose.starts={','.join(STARTS)}",
    )
    workdir = tmp_path / "workdir"
    assert run(workdir, *ALONE, *flags, "--launcher=here") == 0
    found = table(workdir).set_index("stage")
    assert set(found.index) == {"fresh", *STARTS} and found.loss.notna().all()
    assert found.learning_rate.to_dict() == dict.fromkeys(found.index, 0.01) | {"hand_built": 0.001}
    assert found.loc["hand_built"].worst < 0.05 < found.drop("hand_built").worst.min()
    assert found.query_alone.notna().to_dict() == {stage: stage == "no_attention" for stage in found.index}
    place = folder(workdir, "d032_h001_r1")
    starts = [{replica["start"] for replica in record["replicas"]} for record in place.packs()]
    assert starts == [{"drawn"}, {"hand_built"}, {"no_attention"}, {"mlp_first"}]
    html = (workdir / "report" / "index.html").read_text()
    assert all(words in html for words in ("weights by hand", "attention off", "an MLP before the first attention"))


@pytest.mark.slow
def test_it_trains_over_a_mesh(tmp_path):
    """Two runs over two devices, in a process of its own, since JAX fixes their number when it starts."""
    flags = (*ALONE, "--config.grid.d_model=16", "--config.grid.init_seeds=3,4", "--launcher=here")
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(one, *flags) == 0
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, str(HERE.parents[1] / "main.py"), *flags, "--config.mesh.replicas=2"]
    ended = subprocess.run([*command, f"--workdir={two}"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {record["environment"]["devices"] for record in folder(two, ONE).packs()} == {2}
    np.testing.assert_allclose(table(one)[LOSSES], table(two)[LOSSES], rtol=1e-5)


EIGHT_TOO = ("d016_h001", "d016_h008")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """One head and eight, in two workers that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("quiet") / "workdir"
    assert run(workdir, *SHRUNK, *OFTEN, *PROCESSES) == 0
    return workdir


@pytest.mark.slow
@pytest.mark.usefixtures("plain_page")
def test_two_workers_give_the_tables_of_one_process(quiet, tmp_path):
    check_tables(quiet, {*EIGHT_TOO})
    workdir = tmp_path / "workdir"
    assert run(workdir, *SHRUNK, *OFTEN, "--launcher=here", "--cells=d016_h001") == 0
    assert names_of(workdir) == [*CELLS], "a shape is all its doses"
    assert run(workdir, *SHRUNK, *OFTEN, "--launcher=here") == 0
    ours, theirs = table(quiet), table(workdir)
    pd.testing.assert_frame_equal(ours.drop(columns=LOSSES), theirs.drop(columns=LOSSES))
    np.testing.assert_allclose(ours[LOSSES], theirs[LOSSES], rtol=1e-4)
    for name in names_of(workdir):
        check_looks(workdir, name, exact=True)


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_bits(quiet, tmp_path):
    """Alternately a worker, in whose place the parent starts another, and the parent, whose workers die with it."""
    workdir, draw, kills = tmp_path / "workdir", random.Random(0), 0
    command = [sys.executable, str(HERE.parents[1] / "main.py"), *SHRUNK, *OFTEN, *PROCESSES, f"--workdir={workdir}"]
    codes: list[int] = []
    while not codes or codes[-1]:
        assert len(codes) < 20, "it does not get on"
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while kills < 10:
            for _ in range(draw.randint(1, 4)):  # lines that tell of work, however fast this machine is
                process.stdout.readline()
            time.sleep(draw.uniform(0, 0.5))
            if process.poll() is not None:
                break
            victims = [process.pid] if kills % 2 else [pid for pid in of_study(workdir) if pid != process.pid]
            if victims:  # none between two jobs
                os.kill(draw.choice(victims), signal.SIGKILL)
                kills += 1
                if kills % 2 == 0:
                    break
        said = process.communicate(timeout=300)[0]
        codes.append(process.returncode)
        assert codes[-1] in (0, whole_study.SOME_CELL_FAILED, -signal.SIGKILL), said
        until = time.monotonic() + 30
        while of_study(workdir) and time.monotonic() < until:
            time.sleep(0.05)
        assert not of_study(workdir)
    assert kills == 10 and codes.count(-signal.SIGKILL) == 5
    assert left_behind(workdir) == left_behind(quiet)


@pytest.mark.slow
def test_a_rate_at_which_all_diverged_is_not_chosen(tmp_path):
    """Though its frozen weights tell the answers better than those that the sound rate has learnt by then."""
    flags = ("--config.grid.learning_rates=0.003,1e6", "--config.grid.tuning_seeds=100,101")
    flags += ("--config.grid.extensions=0", "--config.grid.d_model=16", "--config.grid.init_seeds=0")
    flags += ("--config.grid.num_heads=1", "--config.dose.relations=1")
    workdir = tmp_path / "workdir"
    assert run(workdir, *SMALLEST, *flags, "--launcher=here") == 0
    found = table(workdir)
    assert set(found[found.learning_rate == 1e6].outcome) == {"diverged"}
    assert found[found.stage == "fresh"].learning_rate.tolist() == [0.003]
