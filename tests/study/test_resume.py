"""A study that was stopped anywhere ends, when it is run again, with the bits of one that was not."""

import json
import os
import random
import shutil
import signal
import time

import pandas as pd
import pytest

from tests.study.tiny import CELLS, Fault, Study, assert_same_results
from train.study import launch
from train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("plain_page")
SECONDS_TO_STOP = 20


def run_to_the_end(study):
    """In this process, which need not start; test_killed_again_and_again ends in one of its own."""
    assert study.run() == 0


def environment(point):
    """Of a process that meets a fault at `point`: a compile that is not found in the cache lasts a while."""
    return {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": str(point != "compile").lower()}


KILLED = {
    "mid-step": Fault("train.run.loop", "read_back", call=3),
    "compile": Fault("jax.stages", "Lowered.compile", call=2, act="kill soon"),
    "mid-save": Fault("train.run.checkpoint", "Saver.save", call=5, after=True),
    "evaluation": Fault("train.losses.documents", "eval_windows", call=2),
    "table write": Fault("pandas", "DataFrame.to_csv", after=True),
}


@pytest.mark.parametrize("point", [p if p == "mid-step" else pytest.param(p, marks=pytest.mark.slow) for p in KILLED])
def test_killed_at_a_point(point, study, quiet):
    code, output = study.finish(fault=KILLED[point], env=environment(point))
    assert code == -signal.SIGKILL, output
    run_to_the_end(study)
    assert_same_results(study, quiet)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_a_random_moment(seed, study, quiet):
    begun = study.start()
    time.sleep(random.Random(seed).uniform(3, 11))
    begun.kill()
    begun.communicate()
    run_to_the_end(study)
    assert_same_results(study, quiet)


@pytest.mark.slow
def test_killed_again_and_again(study, quiet):
    """Soon after each start, but not before the first checkpoint: nothing would ever be kept then."""
    codes = []
    while not codes or codes[-1] and len(codes) < 12:
        code, output = study.finish(fault=Fault("train.run.loop", "read_back", call=6))
        assert code in (0, -signal.SIGKILL), output
        codes.append(code)
    assert codes[-1] == 0 and len(codes) > 3
    assert_same_results(study, quiet)


TERMINATED = {
    "training": Fault("train.run.loop", "read_back", call=3, act="terminate"),
    "compile": Fault("jax.stages", "Lowered.compile", call=2, act="terminate soon"),
    "evaluation": Fault("train.losses.documents", "eval_windows", call=2, act="terminate and linger"),
    "data preparation": Fault("train.data.documents", "split", act="terminate and linger"),
    "mid-save": Fault("train.run.checkpoint", "Saver.save", call=5, after=True, act="terminate"),
    "timing": Fault("train.study.timing", "statistics.median", act="terminate"),
    "table write": Fault("pandas", "DataFrame.to_csv", after=True, act="terminate and linger"),
}


@pytest.mark.parametrize(
    "point", [p if p == "training" else pytest.param(p, marks=pytest.mark.slow) for p in TERMINATED]
)
def test_terminated_at_a_point(point, study, quiet):
    process = study.start(fault=TERMINATED[point], env=environment(point))
    output = "".join(process.communicate(timeout=300))
    asked = float(output.split("terminated ")[1].split()[0])
    assert process.returncode == 75, output
    assert time.time() - asked < SECONDS_TO_STOP
    assert "Run the same command again" in output
    if point == "training":
        assert study.checkpoints("d016_h001"), "the pending checkpoint is finished"
    run_to_the_end(study)
    assert_same_results(study, quiet)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_terminated_at_a_random_moment(seed, study, quiet):
    begun = study.start()
    time.sleep(random.Random(seed).uniform(3, 11))
    begun.send_signal(signal.SIGTERM)
    output = "".join(begun.communicate(timeout=SECONDS_TO_STOP))
    assert begun.returncode in (0, 75), output  # 0: it was done before
    run_to_the_end(study)
    assert_same_results(study, quiet)


def test_terminated_when_all_is_done(done):
    code, output = done.finish(fault=Fault("eval.study", "run", act="terminate at exit"))
    assert code == 0, output


@pytest.mark.slow
def test_terminated_while_it_starts(study, quiet):
    """From another process, at moments between the first import and the first step."""
    for seconds in (1, 1.5, 2.5, 4):
        begun = study.start()
        time.sleep(seconds)
        begun.send_signal(signal.SIGTERM)
        output = "".join(begun.communicate(timeout=SECONDS_TO_STOP))
        assert begun.returncode == 75, output
    run_to_the_end(study)
    assert_same_results(study, quiet)


def training_calls(monkeypatch):
    """The (cell, replicas) of each training from here on."""
    calls, train = [], launch.loop.train

    def noted(program, folder, *rest):
        calls.append((folder.path.name, len(program.pack.replicas)))
        return train(program, folder, *rest)

    monkeypatch.setattr(launch.loop, "train", noted)
    return calls


def test_a_done_cell_is_not_trained_again(done, quiet, monkeypatch):
    calls = training_calls(monkeypatch)
    compiled = []
    monkeypatch.setattr(launch, "Program", lambda *args: compiled.append(args))
    assert done.run() == 0
    assert not calls and not compiled
    assert_same_results(done, quiet)


@pytest.mark.parametrize("grown", ["--config.grid.init_seeds=0,1,2,3", "--config.grid.learning_rates=.01,.02"])
def test_added_replicas_train_alone(grown, done, quiet, monkeypatch):
    calls = training_calls(monkeypatch)
    assert done.run(grown) == 0
    assert calls == [("d016_h001", 2), ("d016_h016", 2)]
    old, keys = quiet.rows(), ["cell", "learning_rate", "init_seed", "split"]
    pd.testing.assert_frame_equal(done.rows().merge(old[keys], on=keys), old)
    assert len(done.rows()) == 2 * len(old)
    for name in CELLS:
        lines = (done.cell(name) / "metrics.jsonl").read_text().splitlines()
        kept = (quiet.cell(name) / "metrics.jsonl").read_text().splitlines()
        assert lines[: len(kept)] == kept and len(lines) == 2 * len(kept)


def test_an_added_cell_trains_alone(done, quiet, monkeypatch):
    shutil.rmtree(done.cell("d016_h016"))
    record = json.loads((done.workdir / "config.json").read_text())
    record["config"]["grid"]["num_heads"] = [1]
    (done.workdir / "config.json").write_text(json.dumps(record))
    calls = training_calls(monkeypatch)
    assert done.run() == 0
    assert calls == [("d016_h016", 2)]
    assert_same_results(done, quiet)


@pytest.mark.slow
def test_a_grid_of_all_powers_grows_too(done, quiet, monkeypatch):
    """What counts is that no cell is lost, however the grid names them."""
    calls = training_calls(monkeypatch)
    assert done.run("--config.grid.num_heads=()") == 0  # powers of head_ratio = 8, and 16
    assert calls == [("d016_h008", 2)]
    assert done.run("--config.grid.num_heads=()", "--config.grid.head_ratio=2") == 0
    assert calls[1:] == [("d016_h002", 2), ("d016_h004", 2)]
    old, keys = quiet.rows(), ["cell", "learning_rate", "init_seed", "split"]
    pd.testing.assert_frame_equal(done.rows().merge(old[keys], on=keys), old)


def test_a_grid_that_loses_a_cell_is_refused(done, capsys):
    assert done.run("--config.grid.num_heads=()", "--config.grid.head_ratio=8") == 0
    capsys.readouterr()
    assert done.run("--config.grid.num_heads=()", "--config.grid.head_ratio=3") == 2
    assert "grid.head_ratio: 8 -> 3" in capsys.readouterr().err


def test_cells_restricts_training_and_keeps_the_tables(done, quiet, monkeypatch):
    calls = training_calls(monkeypatch)
    assert done.run("--cells=d016_h016") == 0
    assert not calls
    pd.testing.assert_frame_equal(done.rows(), quiet.rows())


def test_another_config_is_refused_with_the_fields(done, quiet, capsys):
    for changed, said in {
        "--config.train.steps=25": "train.steps: 24 -> 25",
        "--config.model.num_layers=2": "model.num_layers: 1 -> 2",
        "--config.grid.num_heads=1": "grid.num_heads: [1, 16] -> [1]",
        "--config.data.seq_len=8": "data.seq_len: 16 -> 8",
        "--config.model.layers=scanned": "model.layers: auto -> scanned",
    }.items():
        assert done.run(changed) == 2
        error = capsys.readouterr().err
        assert said in error and "another --workdir" in error and error.count("\n") == 1
    assert done.run() == 0
    assert_same_results(done, quiet)


@pytest.mark.slow
def test_scanned_layers_through_a_whole_study(study, text, tmp_path):
    """Stopped and continued, restored and evaluated again: the losses of the unrolled ones."""
    layers = "--config.model.num_layers=2"
    process = study.start(layers, "--config.model.layers=scanned", fault=TERMINATED["mid-save"])
    output = "".join(process.communicate(timeout=300))
    assert process.returncode == 75, output
    assert study.run(layers, "--config.model.layers=scanned") == study.run("--mode=eval") == 0
    assert json.loads((study.cell(CELLS[0]) / "packs.json").read_text())[0]["model"]["scan_layers"]
    unrolled = Study(text, tmp_path / "unrolled")
    assert unrolled.run(layers) == 0
    keys = ["cell", "init_seed", "split"]
    ours, theirs = (one.rows().set_index(keys).loss.astype("float64") for one in (study, unrolled))
    pd.testing.assert_series_equal(ours, theirs, rtol=1e-5)


def test_growth_that_reshapes_a_cell_is_refused_and_changes_nothing(done, quiet, capsys):
    for more in ([], ["--cells=d064_h001"]):
        assert done.run("--config.grid.d_model=16,64", *more) == 2
        error = capsys.readouterr().err
        assert "d016_h001" in error and "d_ff (64,) ->" in error and error.count("\n") == 1
    assert done.run() == 0
    assert_same_results(done, quiet)


def test_a_second_writer_is_refused(done, capsys):
    workdir = Workdir(done.workdir)
    with workdir.lock():
        assert done.run() == 2
        error = capsys.readouterr().err
        assert f"is being written by process {os.getpid()} on " in error and error.count("\n") == 1
        assert done.run("--mode=eval") == 2
        capsys.readouterr()
        assert done.run("--mode=status") == 0
        assert f"process {os.getpid()}" in capsys.readouterr().out.replace("\n", " ")
    assert workdir.writer() is None
    assert done.run("--mode=status") == 0
    assert str(os.getpid()) not in capsys.readouterr().out


def test_settings_that_shape_the_bits_start_an_unfinished_cell_again(done, quiet, capsys, monkeypatch):
    def stopped_elsewhere(packs):
        packs[0]["trained"] = None
        packs[0]["environment"] |= {"threads": 99, "xla_flags": "--xla_other"}

    done.change_packs("d016_h001", stopped_elsewhere)
    shutil.rmtree(done.cell("d016_h001") / "checkpoints" / "pack_0" / "24")
    calls = training_calls(monkeypatch)
    assert done.run() == 0
    output = capsys.readouterr().out
    assert "d016_h001 starts again from step 0" in output and "threads 99 -> " in output and "xla_flags" in output
    assert calls == [("d016_h001", 2)]
    assert_same_results(done, quiet)


def test_settings_of_a_finished_cell_do_not_matter(done, quiet, monkeypatch):
    calls = training_calls(monkeypatch)
    done.change_packs("d016_h001", lambda packs: packs[0]["environment"].update(threads=99))
    assert done.run() == 0
    assert not calls
    assert_same_results(done, quiet)


def test_the_packing_of_an_unfinished_pack_is_kept(done, quiet, monkeypatch):
    """The dispatcher may choose another path after an update; a pack goes on with the one that it began with."""
    done.change_packs("d016_h016", lambda packs: packs[0].update(trained=None))
    shutil.rmtree(done.cell("d016_h016") / "checkpoints" / "pack_0" / "24")
    monkeypatch.setattr(launch.packs, "resolve", lambda cell, config: (cell.model, "vmap"))
    assert done.run() == 0
    assert_same_results(done, quiet)


def test_stale_drafts_do_no_harm(done, quiet):
    for path in ("results/replicas.csv", "config.json", "cells/d016_h001/packs.json", "cells/d016_h001/metrics.jsonl"):
        (done.workdir / f"{path}.tmp").write_text("torn")
    for path in ("tokens.npy.tmp", "corpus.json.tmp"):
        (done.workdir / "data" / path).write_text("torn")
    (done.cell("d016_h001") / "checkpoints" / "pack_0" / "32.orbax-checkpoint-tmp").mkdir()
    done.change_packs("d016_h001", lambda packs: packs[0].update(trained=None))
    assert done.run() == 0
    assert_same_results(done, quiet)


def test_status_of_a_stopped_study(done, capsys):
    status = done.cell("d016_h016") / "status.json"
    status.write_text(json.dumps({"state": "running", "reason": ""}))
    shutil.rmtree(done.cell("d016_h001"))
    with open(done.cell("d016_h016") / "metrics.jsonl", "a") as file:
        file.write('{"pack": 0, "st')
    before = sorted(path for path in done.workdir.rglob("*"))
    assert done.run("--mode=status") == 0
    output = capsys.readouterr().out
    assert "pending" in output and "stopped" in output and "Nobody is writing" in output
    assert sorted(path for path in done.workdir.rglob("*")) == before


def test_cells_without_a_config_are_not_continued(done, capsys):
    (done.workdir / "config.json").unlink()
    assert done.run() == 2
    assert "holds cells and no config.json" in capsys.readouterr().err
    assert (done.workdir / "data" / "tokens.npy").exists()


def test_every_cell_has_its_bits_from_the_same_settings(quiet):
    for name in CELLS:
        (pack,) = json.loads((quiet.cell(name) / "packs.json").read_text())
        assert {"threads", "xla_flags", "jaxlib", "device", "devices", "cpu"} <= set(pack["environment"])
        assert pack["model"]["attention"] != "auto" and pack["replica_map"] in ("scan", "vmap")
