"""The launches that time steps: what goes wrong in one costs the price and nothing else."""

import json
import pathlib
import time

import pytest

from tests.study.tiny import CELLS, Fault
from train.hosts import memory
from train.study import prices
from train.study.prices import PATHS
from train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("plain_page")
PRICED = ("--config.grid.tuning_seeds=7", "--config.claims.launches=2")


def running(workdir: pathlib.Path) -> list[str]:
    """Command lines of the launches that are alive."""
    found = [path.read_bytes().replace(b"\0", b" ").decode() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in found if "train.study.prices" in line and str(workdir) in line]


def c3(study) -> dict:
    (verdict,) = [v for v in json.loads((study.workdir / "results" / "claims.json").read_text()) if v["id"] == "C3"]
    return verdict


@pytest.mark.slow
def test_a_launch_that_fails_costs_the_price_alone(study, monkeypatch, capsys):
    monkeypatch.setattr(prices.sys, "executable", "false")
    assert study.run(*PRICED) == 3
    output = capsys.readouterr().out
    assert "price: failed: a launch that times steps ended with code 1" in output
    assert "No price: a launch failed. The same command tries it again." in " ".join(output.split())
    assert c3(study)["verdict"] == "undecided" and len(study.rows("cells")) == 2
    monkeypatch.undo()
    times = []
    monkeypatch.setattr(prices, "_wait", lambda process, stop: times.append(process.wait()) or "")
    assert study.run(*PRICED) == 0
    assert times == [0, 0]
    rows = Workdir(study.workdir).price(1).read_text()
    assert {(row["cell"], row["path"]) for row in json.loads(rows)["rows"]} == {
        (cell, path) for cell in CELLS for path in ("auto", "reference")
    }
    assert study.run(*PRICED) == 0
    assert times == [0, 0], "what is timed is not timed again"


@pytest.mark.slow
@pytest.mark.parametrize("act", ["terminate", "terminate group"])
def test_terminated_while_a_launch_runs(act, study):
    process = study.start(*PRICED, fault=Fault("train.study.prices", "_wait", act=act), start_new_session=True)
    output = "".join(process.communicate(timeout=300))
    assert process.returncode == 75, output
    assert not running(study.workdir)
    code, output = study.finish(*PRICED)
    assert code == 0 and Workdir(study.workdir).price(1).exists(), output


@pytest.mark.slow
def test_a_launch_dies_with_its_parent(study):
    process = study.start(*PRICED)
    until = time.monotonic() + 200
    while not running(study.workdir) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while running(study.workdir) and time.monotonic() < until:
        time.sleep(0.1)
    assert not running(study.workdir) and not Workdir(study.workdir).price(0).exists()


def test_the_price_is_that_of_one_run(done):
    """At h = 1, d_k = T, both paths are plain attention: one program under two names has one price."""
    found = []
    for launch in range(3):
        prices.main(Workdir(done.workdir), launch, list(CELLS))
        found += json.loads(Workdir(done.workdir).price(launch).read_text())["rows"]
    times = {
        path: [row["step_ms"] for row in found if row["cell"] == CELLS[0] and row["path"] == path] for path in PATHS
    }
    ratios = [one / other for one, other in zip(*times.values(), strict=True)]
    assert 0.7 < sorted(ratios)[1] < 1.4
    of_pack = json.loads((done.cell(CELLS[0]) / "timing.json").read_text())["peak_memory_bytes"]
    (alone,) = {row["memory_bytes"] for row in found if row["cell"] == CELLS[0]}
    assert alone < of_pack, "the pack's program holds two runs"


def test_a_path_that_does_not_fit_is_left_out(done, monkeypatch):
    """Plain attention keeps every head's probabilities, and may need what the device has not."""
    sizes = iter([1, 10**18] * len(CELLS))
    monkeypatch.setattr(memory, "compiled_bytes", lambda compiled: next(sizes))
    prices.main(Workdir(done.workdir), 0, list(CELLS))
    rows = json.loads(Workdir(done.workdir).price(0).read_text())["rows"]
    assert [(row["cell"], row["path"]) for row in rows] == [(cell, "auto") for cell in CELLS]
