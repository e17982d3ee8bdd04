"""Cells in worker processes: the same study, whichever process dies, is stopped or runs out of memory."""

import dataclasses
import itertools
import json
import os
import pathlib
import queue
import signal
import sys
import time

import numpy as np
import pandas as pd
import pytest

import main
from tests.study.test_resume import SECONDS_TO_STOP
from tests.study.tiny import CELLS, HERE, Fault, Study, assert_same_losses, assert_same_results
from train.hosts import slots, workers
from train.study import launch

pytestmark = pytest.mark.usefixtures("plain_page")
DONE, FAULT, SOME_CELL_FAILED, RUN_AGAIN = 0, 1, 3, 75
PROCESSES = "--launcher=processes"
AGAIN = "goes on from its last checkpoint in a new one"
MID_STEP = Fault("train.run.loop", "read_back", call=3)
ONE_CORE = not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == 1
several_cores = pytest.mark.skipif(ONE_CORE, reason="a worker is told by its one core from a study on several")


@pytest.fixture(scope="module")
def beside(text, tmp_path_factory):
    """The study as it ends in workers that nothing disturbs; not to be written to."""
    study = Study(text, tmp_path_factory.mktemp("beside") / "workdir")
    assert study.run(PROCESSES) == DONE
    return study


@pytest.fixture
def with_fault(monkeypatch, tmp_path):
    """Gives the workers that this process starts a fault; once, if not told `always`."""

    def give(fault: Fault, always: bool = False) -> pathlib.Path:
        marker = tmp_path / "happened"
        fault = dataclasses.replace(fault, worker=str(tmp_path / "never/happens" if always else marker))
        command = (sys.executable, str(HERE / "driver.py"), json.dumps(dataclasses.asdict(fault)), "worker")
        monkeypatch.setattr(main, "WORKER", command)
        return marker

    return give


def of_study(workdir: pathlib.Path) -> list[int]:
    """The ids of all processes but this one whose command line names `workdir`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(workdir).encode() in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def test_each_cell_runs_in_a_process_of_one_core(beside, quiet):
    """With the losses of one process, to rounding."""
    for name in CELLS:
        (pack,) = json.loads((beside.cell(name) / "packs.json").read_text())
        assert pack["environment"]["threads"] == 1
        assert json.loads((beside.cell(name) / "timing.json").read_text())["threads"] == 1
    ours, theirs = (study.rows().astype({"loss": float}) for study in (beside, quiet))
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    assert list(ours.cell) == list(theirs.cell) and not of_study(beside.workdir)


def test_a_study_that_is_done_starts_no_worker(beside, tmp_path, monkeypatch):
    done = beside.copy(tmp_path / "workdir")
    monkeypatch.setattr(workers, "_Worker", None)
    assert done.run(PROCESSES) == DONE
    assert_same_results(done, beside)


def test_a_killed_worker_costs_its_cell_some_steps_and_nothing_else(study, beside, with_fault, capsys):
    assert not with_fault(MID_STEP).exists()
    assert study.run(PROCESSES) == DONE
    output = capsys.readouterr().out
    assert output.count(AGAIN) == 1 and "its worker ended by signal 9" in output
    assert_same_results(study, beside)


@pytest.mark.slow
def test_a_cell_whose_worker_dies_twice_waits_for_the_next_start(study, beside, with_fault, monkeypatch, capsys):
    with_fault(MID_STEP, always=True)
    assert study.run(PROCESSES) == SOME_CELL_FAILED
    assert capsys.readouterr().out.count(AGAIN) == 2
    for name in CELLS:
        assert study.state(name) == "failed" and study.reason(name) == "its worker ended by signal 9, twice."
    monkeypatch.undo()
    assert study.run(PROCESSES) == DONE
    assert_same_results(study, beside)


@pytest.fixture
def untimed(beside, tmp_path):
    """The study, done but for its step times."""
    done = beside.copy(tmp_path / "workdir")
    for name in CELLS:
        (done.cell(name) / "timing.json").unlink()
    return done


TIMES = Fault("train.study.timing", "statistics.median")


def test_steps_are_timed_in_a_worker_whose_death_costs_the_times_alone(untimed, beside, with_fault, capsys):
    marker = with_fault(TIMES)
    assert untimed.run(PROCESSES) == DONE and marker.exists()
    output = capsys.readouterr().out
    assert output.count("the worker that times steps ended by signal 9; a new one begins again") == 1
    for name in CELLS:
        assert json.loads((untimed.cell(name) / "timing.json").read_text())["step_ms"] > 0
    assert_same_results(untimed, beside)


@pytest.mark.slow
def test_step_times_that_two_workers_die_of_wait_for_the_next_start(untimed, beside, with_fault, monkeypatch, capsys):
    with_fault(TIMES, always=True)
    assert untimed.run(PROCESSES) == SOME_CELL_FAILED
    output = capsys.readouterr().out
    assert "ended by signal 9, twice; the same command tries it again" in output
    assert f"No step times: {', '.join(CELLS)}. The same command measures them." in " ".join(output.split())
    assert pd.read_csv(untimed.workdir / "results" / "replicas.csv").step_ms.isna().all()
    assert_same_results(untimed, beside)
    monkeypatch.undo()
    assert untimed.run(PROCESSES) == DONE
    assert (pd.read_csv(untimed.workdir / "results" / "replicas.csv").step_ms > 0).all()


@pytest.mark.slow
def test_terminated_while_a_worker_times_steps(untimed, beside, tmp_path):
    fault = dataclasses.replace(TIMES, act="terminate parent", worker=str(tmp_path / "happened"))
    process = untimed.start(PROCESSES, fault=fault)
    output = "".join(process.communicate(timeout=300))
    assert process.returncode == RUN_AGAIN, output
    assert not of_study(untimed.workdir)
    assert untimed.run(PROCESSES) == DONE
    assert_same_results(untimed, beside)


@several_cores
def test_terminated_with_its_workers_and_continued_as_begun(study, beside, tmp_path, capsys):
    """The command that continues names no launcher, and goes on with that of the workdir."""
    fault = dataclasses.replace(MID_STEP, act="terminate parent", worker=str(tmp_path / "happened"))
    process = study.start(PROCESSES, fault=fault)
    output = "".join(process.communicate(timeout=300))
    asked = float(output.split("terminated ")[1].split()[0])
    assert process.returncode == RUN_AGAIN, output
    assert time.time() - asked < SECONDS_TO_STOP and not of_study(study.workdir)
    assert "Run the same command again" in output and AGAIN not in output
    assert any(study.checkpoints(name) for name in CELLS), "the pending checkpoint is finished"
    assert dataclasses.replace(study, launcher="").run() == DONE
    output = capsys.readouterr().out
    assert "from step 0" not in output and "continues at step" in output
    assert_same_results(study, beside)


@pytest.mark.slow
def test_workers_die_with_their_parent_and_the_rerun_meets_none(study, beside, tmp_path):
    fault = dataclasses.replace(MID_STEP, act="kill parent", worker=str(tmp_path / "happened"))
    process = study.start(PROCESSES, fault=fault)
    began = time.monotonic()
    process.wait(timeout=300)
    assert process.returncode == -signal.SIGKILL
    while of_study(study.workdir) and time.monotonic() - began < 60:
        time.sleep(0.1)
    assert not of_study(study.workdir)
    assert study.run(PROCESSES) == DONE
    assert_same_results(study, beside)


@several_cores
@pytest.mark.slow
def test_another_launcher_starts_only_unfinished_packs_again(beside, tmp_path, quiet, capsys):
    half = beside.copy(tmp_path / "workdir")
    half.change_packs(CELLS[0], lambda packs: packs[0].update(trained=None))
    before = (half.cell(CELLS[1]) / "packs.json").read_bytes()
    assert half.run() == DONE  # here
    assert "d016_h001 starts again from step 0, since its bits depend on threads 1 -> " in capsys.readouterr().out
    assert (half.cell(CELLS[1]) / "packs.json").read_bytes() == before
    for name in CELLS:  # in one table no times of one core stand beside those of several
        assert json.loads((half.cell(name) / "timing.json").read_text())["threads"] == slots.threads()
    for name, like in zip(CELLS, (quiet, beside), strict=True):
        pd.testing.assert_frame_equal(*(study.rows()[study.rows().cell == name] for study in (half, like)))


@pytest.mark.slow
def test_out_of_memory_is_tried_again_with_half_the_replicas(study, beside, with_fault, monkeypatch, capsys):
    marker = with_fault(MID_STEP)
    monkeypatch.setattr(workers.slots, "oom_kills", lambda: int(marker.exists()))
    assert study.run(PROCESSES) == DONE
    assert "starts again with half the replicas at once" in capsys.readouterr().out
    packs = [json.loads((study.cell(name) / "packs.json").read_text()) for name in CELLS]
    (cut,) = [records for records in packs if len(records) > 1]
    assert [(len(record["replicas"]), record["rows"]) for record in cut] == [(1, 1), (1, 1)]
    assert_same_losses(study, beside)


@pytest.mark.slow
def test_out_of_memory_twice_is_noted_and_the_rest_goes_on(study, with_fault, monkeypatch):
    with_fault(dataclasses.replace(MID_STEP, call=1), always=True)
    monkeypatch.setattr(workers.slots, "oom_kills", itertools.count().__next__)
    assert study.run(PROCESSES) == SOME_CELL_FAILED
    for name in CELLS:
        assert study.state(name) == "out_of_memory" and "train.batch_size" in study.reason(name)


@pytest.fixture
def small_group():
    """Files of a control group of 2 GB: the one that takes process ids, and the one that counts."""
    first, second = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
    group = (first if first.is_dir() else second) / f"headroom-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if first.is_dir() else "memory.max")
        limit.write_text(str(2 << 30))
    except OSError as error:
        pytest.skip(f"this user may not make a control group: {error}")
    yield group
    for _ in range(100):  # until the kernel has seen the last of its processes off
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.1)


@pytest.mark.slow
def test_the_kernel_kills_a_worker_for_want_of_memory(study, small_group, tmp_path):
    fault = dataclasses.replace(MID_STEP, act="take all memory", worker=str(tmp_path / "happened"))
    process = study.start(PROCESSES, fault=fault)
    (small_group / "cgroup.procs").write_text(str(process.pid))  # long before it has workers
    output = "".join(process.communicate(timeout=300))
    assert process.returncode == DONE, output
    assert output.count("starts again with half the replicas at once") == 1


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_worker_ends_the_study(study, beside, with_fault, capsys):
    with_fault(Fault("train.run.checkpoint", "Saver.save", call=2, act="disk full"))
    assert study.run(PROCESSES) == FAULT
    assert "is full" in capsys.readouterr().err and not of_study(study.workdir)
    assert study.run(PROCESSES) == DONE
    assert_same_results(study, beside)


@pytest.mark.slow
def test_the_stages_of_tuning(study):
    from tests.study.test_stages import PROTOCOL

    assert study.run(*PROTOCOL, PROCESSES) == DONE
    rows = study.rows()
    assert set(rows[rows.stage == "tuning"].learning_rate) == {"0.005", "0.01", "0.02"}
    assert set(rows[rows.stage == "fresh"].split) == {"tune", "test"} and len(rows) == 2 * (6 + 4)


def test_evaluation_repeats_the_bits_of_workers(beside, tmp_path):
    done = beside.copy(tmp_path / "workdir")
    for name in CELLS:
        (done.cell(name) / "documents_0.parquet").unlink()
    assert done.run("--mode=eval", PROCESSES) == DONE
    assert_same_results(done, beside)


def test_longest_first():
    def job(heads, replicas, dose=0):
        model = launch.packs.ModelConfig(256, 64, 64, heads, 64 // heads, (256, 256))
        return workers.Job("train", (workers.Cell(model, (None,) * replicas, dose),))

    jobs = [job(1, 2), job(64, 2), job(8, 2), job(1, 9)]
    order = sorted(jobs, key=workers._cost, reverse=True)
    assert [jobs.index(one) for one in order] == [3, 1, 2, 0]
    doses = [job(heads, 6, dose) for dose in (1, 6) for heads in (1, 8)]  # one head takes more steps than eight
    order = sorted(doses, key=workers._cost, reverse=True)
    assert [doses.index(one) for one in order] == [2, 3, 0, 1]


def test_what_else_a_worker_prints_is_no_end(tmp_path):
    """A line that is none of its, or torn, is passed over."""
    said = ["from a library", '{"call": "say", "args": ["a"]}', "17", '{"call": "sa']
    command = [sys.executable, "-c", f"print({chr(10).join(said)!r})"]
    events = queue.SimpleQueue()
    with open(tmp_path / "lock", "w") as lock:
        worker = workers._Worker(command, 0, lock)
        worker.read(events)
        worker.process.wait()
    assert [events.get()[1] for _ in range(2)] == [{"call": "say", "args": ["a"]}, None] and events.empty()
