"""Runs the tiny study, here or in a process of its own, and reads what it leaves."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import pandas as pd

import main
from eval.tables import MEASURED

HERE = pathlib.Path(__file__).resolve().parent
CELLS = ("d016_h001", "d016_h016")


@dataclasses.dataclass(frozen=True)
class Fault:
    """At the `call`-th call of `module`.`name`, before it or after, `act` happens (see driver.py): in every process of
    a study, or with `worker`, a path, in its workers until that file exists, which the first to meet it writes.
    """

    module: str
    name: str
    call: int = 1
    after: bool = False
    act: str = "kill"
    worker: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """A text, a workdir, and where cells run if the call does not say so; '' leaves that to the study."""

    text: pathlib.Path
    workdir: pathlib.Path
    launcher: str = "here"

    def arguments(self, *more: str) -> list[str]:
        config = [] if {"--mode=eval", "--mode=report", "--mode=status"} & {*more} else [self.config]
        launcher = [f"--launcher={self.launcher}"] if self.launcher else []
        return [*config, f"--workdir={self.workdir}", *launcher, *more]

    @property
    def config(self) -> str:
        return f"--config={HERE / 'tiny_config.py'}:{self.text}"

    def run(self, *more: str) -> int:
        """The exit code of the study in this process."""
        return main.main(self.arguments(*more))

    def start(self, *more: str, fault: Fault | None = None, **keywords) -> subprocess.Popen:
        """The study in a process of its own."""
        command = [sys.executable, str(HERE.parents[1] / "main.py"), *self.arguments(*more)]
        if fault:
            command[1:2] = [str(HERE / "driver.py"), json.dumps(dataclasses.asdict(fault))]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)

    def finish(self, *more: str, fault: Fault | None = None, **keywords) -> tuple[int, str]:
        """Exit code and all output of the study in a process of its own."""
        process = self.start(*more, fault=fault, **keywords)
        output = "".join(process.communicate(timeout=300))
        return process.returncode, output

    def copy(self, workdir: pathlib.Path) -> "Study":
        shutil.copytree(self.workdir, workdir)
        return Study(self.text, workdir)

    def cell(self, name: str) -> pathlib.Path:
        return self.workdir / "cells" / name

    def state(self, name: str) -> str:
        return json.loads((self.cell(name) / "status.json").read_text())["state"]

    def reason(self, name: str) -> str:
        return json.loads((self.cell(name) / "status.json").read_text())["reason"]

    def checkpoints(self, name: str) -> list[int]:
        """The steps of its checkpoints; none of a cell that was stopped before it made their folder."""
        folder = self.cell(name) / "checkpoints" / "pack_0"
        return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())

    def change_packs(self, name: str, change) -> None:
        """Rewrites packs.json of a cell with `change(packs)`."""
        path = self.cell(name) / "packs.json"
        packs = json.loads(path.read_text())
        change(packs)
        path.write_text(json.dumps(packs))

    def rows(self, table: str = "replicas") -> pd.DataFrame:
        """A results table, every digit as text, without what a clock or an allocator fills."""
        return pd.read_csv(self.workdir / "results" / f"{table}.csv", dtype=str).drop(columns=list(MEASURED))


def assert_same_results(one: Study, other: Study) -> None:
    """Every column but the measured ones, every document's loss, and every line of metrics."""
    for table in ("replicas", "cells"):
        pd.testing.assert_frame_equal(one.rows(table), other.rows(table))
    documents = [pd.read_parquet(study.workdir / "results" / "documents.parquet") for study in (one, other)]
    pd.testing.assert_frame_equal(*documents, check_exact=True)
    for name in CELLS:
        lines = [(study.cell(name) / "metrics.jsonl").read_text().splitlines() for study in (one, other)]
        assert lines[0] == lines[1] and len(lines[0]) == 24 * 2
        assert one.state(name) == other.state(name) == "done"
        assert one.checkpoints(name) == other.checkpoints(name) == [16, 24]


def assert_same_losses(one: Study, other: Study) -> None:
    """Of every run, however they were packed."""
    columns = ["cell", "init_seed", "split", "loss"]
    tables = [study.rows()[columns].sort_values(columns, ignore_index=True) for study in (one, other)]
    pd.testing.assert_frame_equal(*tables)
