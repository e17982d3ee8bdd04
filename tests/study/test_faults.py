"""What goes wrong while a study runs: finished work stays whole, the rest goes on or says clearly why not."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from eval import tables
from eval.restore import NotReproduced, restore
from mha import budget
from tests.study.tiny import CELLS, Fault, assert_same_losses, assert_same_results
from train.hosts import memory
from train.run import loop
from train.study import launch
from train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("plain_page")
ONE, OTHER = CELLS
DONE, FAULT, SOME_CELL_FAILED = 0, 1, 3


def data_files(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    """The files of the weights, largest first."""
    files = [path for path in (checkpoint / "params").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size, reverse=True)


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped byte": lambda checkpoint: flip(data_files(checkpoint)[0]),
    "truncated": lambda checkpoint: os.truncate(data_files(checkpoint)[0], 100),
    "metadata gone": lambda checkpoint: (checkpoint / "_CHECKPOINT_METADATA").unlink(),
    "empty folder": lambda checkpoint: (shutil.rmtree(checkpoint), checkpoint.mkdir()),
    "missing": shutil.rmtree,
}


def newest(study, name, step=24) -> pathlib.Path:
    return study.cell(name) / "checkpoints" / "pack_0" / str(step)


def untouched(study, name):
    """What a cell's folder holds, with the moments of writing, except its status, which every run writes anew."""
    folder = study.cell(name)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "status.json"]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(damage, done, quiet, capsys):
    """Not evaluated yet, so the study needs the checkpoint."""
    DAMAGE[damage](newest(done, ONE))
    (done.cell(ONE) / "documents_0.parquet").unlink()
    before = untouched(done, OTHER)
    assert done.run() == DONE
    output = capsys.readouterr().out
    assert "continues at step 16 of 24" in output and "Training it again from the checkpoint before" in output
    assert untouched(done, OTHER) == before
    assert_same_results(done, quiet)


def test_without_a_whole_checkpoint_that_cell_trains_again(done, quiet, capsys):
    for step in (16, 24):
        flip(data_files(newest(done, ONE, step))[0])
    (done.cell(ONE) / "documents_0.parquet").unlink()
    before = untouched(done, OTHER)
    assert done.run() == DONE
    output = capsys.readouterr().out
    assert "Falling back" in output and "continues at" not in output and f"{ONE}: step 1/24" in output
    assert untouched(done, OTHER) == before
    assert_same_results(done, quiet)


def test_a_half_trained_cell_falls_back_too(done, quiet, capsys):
    done.change_packs(ONE, lambda packs: packs[0].update(trained=None))
    flip(data_files(newest(done, ONE))[0])
    assert done.run() == DONE
    output = capsys.readouterr().out
    assert "Falling back to the checkpoint before it" in output and "continues at step 16 of 24" in output
    assert_same_results(done, quiet)


def test_eval_names_a_damaged_cell_and_a_study_mends_it(done, quiet, capsys):
    flip(data_files(newest(done, ONE))[0])
    (done.cell(ONE) / "documents_0.parquet").unlink()
    assert done.run("--mode=eval") == SOME_CELL_FAILED
    assert done.state(ONE) == "failed" and done.state(OTHER) == "done"
    assert "SHA-256 differs" in done.reason(ONE) and "--mode=study trains this cell again" in done.reason(ONE)
    assert set(done.rows().cell) == {OTHER}
    output = capsys.readouterr().out
    assert f"Not done: {ONE}" in output
    assert done.run() == DONE
    assert_same_results(done, quiet)


def test_eval_needs_no_flags_and_gives_the_same(done, quiet):
    shutil.rmtree(done.workdir / "results")
    for name in CELLS:
        (done.cell(name) / "documents_0.parquet").unlink()
    assert done.run("--mode=eval") == DONE
    assert_same_results(done, quiet)


def test_eval_beside_half_trained_replicas(done, quiet):
    """Replicas that were added and not trained yet leave the cell's state as it is."""

    def add(packs):
        packs.append({**packs[0], "index": 1, "trained": None})

    done.change_packs(ONE, add)
    assert done.run("--mode=eval") == DONE
    pd.testing.assert_frame_equal(done.rows(), quiet.rows())


def test_a_loss_that_differs_from_the_trained_one_is_noticed(done):
    done.change_packs(ONE, lambda packs: packs[0]["trained"]["tune_losses"].__setitem__(1, 1.0))
    (done.cell(ONE) / "documents_0.parquet").unlink()
    assert done.run("--mode=eval") == SOME_CELL_FAILED
    assert done.state(ONE) == "failed" and "agree in every bit" in done.reason(ONE)
    assert done.state(OTHER) == "done"


def test_the_loss_at_the_end_of_training_is_recorded_exactly(quiet):
    """The check above is on: what training recorded is what the tables show, to the last bit."""
    documents = pd.read_parquet(quiet.workdir / "results" / "documents.parquet")
    for name in CELLS:
        (pack,) = json.loads((quiet.cell(name) / "packs.json").read_text())
        for seed, recorded in enumerate(pack["trained"]["tune_losses"]):
            one = documents[(documents.cell == name) & (documents.init_seed == seed) & (documents.split == "tune")]
            assert one.loss_sum.to_numpy().sum() == recorded > 0


def test_torn_and_late_lines_of_metrics_are_dropped(done, quiet):
    done.change_packs(ONE, lambda packs: packs[0].update(trained=None))
    shutil.rmtree(newest(done, ONE))
    with open(done.cell(ONE) / "metrics.jsonl", "ab") as file:
        file.write(b'{"pack": 0, "step": 24, "replica": "x", "loss": 1.0}\n{"pack": 0, "step": 2\xff')
    assert done.run() == DONE
    assert_same_results(done, quiet)


def test_damaged_losses_are_evaluated_again(done, quiet, capsys):
    """From the checkpoint; the report alone names the file."""
    losses = done.cell(ONE) / "documents_0.parquet"
    os.truncate(losses, losses.stat().st_size // 2)
    assert done.run("--mode=report") == 2
    error = capsys.readouterr().err
    assert f"{losses} cannot be read" in error and "--mode=eval writes it again" in error and error.count("\n") == 1
    before = untouched(done, OTHER)
    assert done.run() == DONE
    assert untouched(done, OTHER) == before
    assert_same_results(done, quiet)


@pytest.mark.parametrize("content", ["{", "[1]", "{}"])
def test_damaged_times_are_measured_again(content, done, quiet):
    (done.cell(ONE) / "timing.json").write_text(content)
    assert done.run("--mode=report") == DONE
    assert done.run() == DONE
    assert json.loads((done.cell(ONE) / "timing.json").read_text())["step_ms"] > 0
    assert_same_results(done, quiet)


def test_one_failing_cell_leaves_the_others_and_is_tried_again(study, quiet, monkeypatch, capsys):
    train = loop.train

    def failing(program, *rest):
        if program.pack.model.num_heads == 1:
            raise RuntimeError("something broke")
        return train(program, *rest)

    monkeypatch.setattr(loop, "train", failing)
    assert study.run() == SOME_CELL_FAILED
    assert study.state(ONE) == "failed" and study.reason(ONE) == "something broke"
    assert "RuntimeError" in (study.cell(ONE) / "error.txt").read_text()
    assert study.state(OTHER) == "done" and set(study.rows().cell) == {OTHER}
    assert f"Not done: {ONE}" in capsys.readouterr().out
    assert study.run("--mode=report") == SOME_CELL_FAILED
    monkeypatch.undo()
    assert study.run() == DONE
    assert_same_results(study, quiet)


def test_a_program_that_does_not_fit_leaves_the_others(study, quiet, monkeypatch):
    """h = 16 needs more than h = 1 once it is compiled, which the estimate cannot know exactly."""
    limit = 1_000_000_000
    monkeypatch.setattr(memory, "limit", lambda config: limit)
    monkeypatch.setattr(memory, "compiled_bytes", lambda compiled, real=memory.compiled_bytes: next(sizes))
    sizes = iter((limit, limit + 1, limit + 1))  # with half the replicas too
    assert study.run() == SOME_CELL_FAILED
    assert study.state(ONE) == "done" and study.state(OTHER) == "out_of_memory"
    assert "needs 0.93 GiB" in study.reason(OTHER) and "raise train.memory_limit_gb" in study.reason(OTHER)
    monkeypatch.undo()
    assert study.run("--config.train.memory_limit_gb=2") == DONE
    assert_same_losses(study, quiet)


def out_of_memory(*_):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.")


def test_out_of_memory_is_tried_again_with_half_the_replicas(study, quiet, monkeypatch, capsys):
    train, packs = loop.train, []

    def failing(program, *rest):
        packs.append(len(program.pack.replicas))
        return out_of_memory() if len(packs) == 1 else train(program, *rest)

    monkeypatch.setattr(loop, "train", failing)
    assert study.run() == DONE
    assert "d016_h001: memory ran out; it starts again with half the replicas at once" in capsys.readouterr().out
    assert packs == [2, 1, 1, 2]
    assert_same_losses(study, quiet)


def test_an_allocation_that_fails_again_is_noted(study, monkeypatch):
    monkeypatch.setattr(loop, "train", out_of_memory)
    assert study.run("--cells=d016_h001") == SOME_CELL_FAILED
    assert study.state(ONE) == "out_of_memory" and "17179869184" in study.reason(ONE)


def test_a_fault_of_the_timing_pass_costs_the_times_alone(done, quiet, monkeypatch, capsys):
    for name in CELLS:
        (done.cell(name) / "timing.json").unlink()
    monkeypatch.setattr("train.study.timing.measure", out_of_memory)
    assert done.run() == SOME_CELL_FAILED
    output = capsys.readouterr().out
    assert "step times: not measured: RESOURCE_EXHAUSTED" in output
    assert f"No step times: {', '.join(CELLS)}. The same command measures them." in " ".join(output.split())
    assert pd.read_csv(done.workdir / "results" / "replicas.csv").step_ms.isna().all()
    monkeypatch.undo()
    assert done.run() == DONE
    assert (pd.read_csv(done.workdir / "results" / "replicas.csv").step_ms > 0).all()
    assert_same_results(done, quiet)


def test_the_estimate_names_all_cells_that_cannot_fit(study, capsys):
    assert study.run("--config.train.memory_limit_gb=0.00001") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(name in error for name in CELLS)
    assert "0.00 GiB" not in error and "train.batch_size" in error
    assert not (study.workdir / "config.json").exists()


@pytest.mark.parametrize("replica_map", ["scan", pytest.param("vmap", marks=pytest.mark.slow)])
def test_a_diverged_replica_is_recorded(replica_map, study):
    """A rate that no model survives, beside one that it does; the bits of the neighbour are tested in test_loop.py."""
    flags = [f"--config.train.replica_map={replica_map}", "--config.grid.init_seeds=0", "--cells=d016_h001"]
    assert study.run(*flags, "--config.grid.learning_rates=.01,1e30") == DONE
    rows = study.rows().set_index(["learning_rate", "split"])
    assert (rows.loc["0.01"].status == "done").all() and (rows.loc["0.01"].diverged_at == "-1").all()
    assert (rows.loc["1e+30"].status == "diverged").all() and (rows.loc["1e+30"].diverged_at.astype(int) >= 0).all()
    assert study.state(ONE) == "done"
    cell = study.rows("cells").iloc[0]
    assert cell.learning_rate == "0.01" and cell.diverged == "1"
    lines = [json.loads(line) for line in (study.cell(ONE) / "metrics.jsonl").read_text().splitlines()]
    assert any(line["loss"] is None or line["grad_norm"] is None for line in lines)
    assert study.run("--mode=eval") == DONE


def test_a_perplexity_beyond_any_float(quiet):
    """And a loss that is no number is reproduced by one that is none."""
    assert tables.perplexity(1e5) == np.inf and np.isnan(tables.perplexity(np.nan))
    restored = dataclasses.replace(restore(quiet.cell(ONE), 0), trained={"losses": [np.nan, 1.0]})
    restored.check(np.array([np.nan, 1.0]), "losses", lambda trained: trained["losses"])
    with pytest.raises(NotReproduced, match="must agree in every bit"):
        restored.check(np.array([1.0, np.nan]), "losses", lambda trained: trained["losses"])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB of its own: a folder, and a function that fills it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: pathlib.Path, leave: int) -> pathlib.Path:
    """Takes all but `leave` bytes of the file system of `folder`; returns the file that does."""
    free = os.statvfs(folder)
    ballast = folder / "ballast"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
    return ballast


@pytest.mark.parametrize("leave", [0, pytest.param(60_000, marks=pytest.mark.slow), 400_000])
def test_a_full_disk_ends_clearly_and_the_study_resumes_when_there_is_room(leave, small_disk, study, quiet, capsys):
    here = type(study)(study.text, small_disk / "workdir")
    ballast = fill(small_disk, leave)
    assert here.run() == FAULT
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is full" in error and "free space and run the same command again" in error
    ballast.unlink()
    assert here.run() == DONE
    assert_same_results(here, quiet)


def test_a_full_disk_leaves_finished_cells_readable(small_disk, study, quiet, capsys):
    here = type(study)(study.text, small_disk / "workdir")
    assert here.run("--cells=d016_h001") == DONE
    ballast = fill(small_disk, 40_000)
    assert here.run() == FAULT
    capsys.readouterr()
    assert here.run("--mode=status") == DONE
    assert "done" in capsys.readouterr().out
    kept = quiet.rows()
    pd.testing.assert_frame_equal(here.rows(), kept[kept.cell == ONE])
    ballast.unlink()
    assert here.run() == DONE
    assert_same_results(here, quiet)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("train.files", "write_text", call=3, act="disk full"),
        Fault("train.run.checkpoint", "Saver.save", call=2, act="disk full"),
    ],
    ids=["json", "checkpoint"],
)
@pytest.mark.slow
def test_a_write_that_finds_no_room(fault, study, quiet):
    code, output = study.finish(fault=fault)
    assert code == FAULT and "is full" in output and "Traceback" not in output
    assert study.run() == DONE
    assert_same_results(study, quiet)


def test_a_missing_or_damaged_corpus_is_named(done, quiet, capsys):
    tokens = done.workdir / "data" / "tokens.npy"
    whole = tokens.read_bytes()
    flip(tokens)
    assert done.run() == 2 and done.run("--mode=eval") == 2
    tokens.unlink()
    assert done.run() == 2
    assert capsys.readouterr().err.count("tokens.npy") == 3
    tokens.write_bytes(whole)
    assert done.run() == DONE
    assert_same_results(done, quiet)


def test_a_changed_source_changes_nothing(done, quiet, tmp_path):
    """The tokens in the workdir are the study's, whatever becomes of the text."""
    text = tmp_path / "text.txt"
    shutil.copy(done.text, text)
    moved = type(done)(text, done.workdir)
    record = json.loads((done.workdir / "config.json").read_text())
    record["config"]["data"]["source"] = f"file:{text}"
    (done.workdir / "config.json").write_text(json.dumps(record))
    text.unlink()
    assert moved.run() == DONE
    assert_same_results(moved, quiet)


def test_parameters_of_the_tiny_cells_are_equal(quiet):
    """So that the comparisons above are between cells that differ in heads alone."""
    models = [json.loads((quiet.cell(name) / "packs.json").read_text())[0]["model"] for name in CELLS]
    sizes = {
        budget.parameters(launch.packs.ModelConfig(**{**model, "d_ff": tuple(model["d_ff"])})).non_embedding
        for model in models
    }
    assert len(sizes) == 1
    assert Workdir(quiet.workdir).writer() is None
