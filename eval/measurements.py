"""Measurements on restored cells: found in eval/measure, run once a checkpoint, merged into results/.

A measurement is a module of eval/measure. Its name is the module's, its title the first line of the docstring, and it
has

  IN_STUDY      whether every study takes it; others are asked for by --measure alone
  lacks         (config, model) -> '', or the sentence why it does not apply
  settings      (config) -> what of the config shapes it, as JSON; with the checkpoints its key
  measure       (restored, split, settings) -> a DataFrame with a column `replica`, of names, for each pack

or, where it compares packs or NEEDS other measurements, a tuple of names,

  measure_cell  ([restored, ...], split, settings, {name: rows of the split}) -> the same, for all packs of a cell.

TABLE and TITLE, where it has them, name its files and what it is otherwise.
"""

import dataclasses
import json
import math
import pathlib
import types
from collections.abc import Iterable

import pandas as pd

import eval.measure
from eval import walk
from eval.restore import Restored, restore
from train import files, grid
from train.config import InputError, StudyConfig, nearest
from train.hosts.workers import Job
from train.run import packs
from train.run.checkpoint import CorruptCheckpoint
from train.study import launch
from train.workdir import CellFolder, Workdir, disk_is_full, read_table

SPLITS = ("tune", "test")
RUN = ["learning_rate", "init_seed", "data_seed"]  # of a replica, beside its name
MOST_CSV_ROWS = 20_000  # of a table that is written as CSV too


def known() -> dict[str, types.ModuleType]:
    """Every measurement by name."""
    return {module.__name__.rpartition(".")[2]: module for module in walk.modules(eval.measure)}


def table_of(name: str) -> str:
    return getattr(known()[name], "TABLE", name)


def title_of(name: str) -> str:
    return getattr(known()[name], "TITLE", known()[name].__doc__.strip().splitlines()[0])


def asked(names: list[str], config: StudyConfig, cells: Iterable[grid.Cell]) -> tuple[str, ...]:
    """The measurements `names`, or without any those of every study, that apply to some of `cells`, each behind those
    that it needs.

    Raises:
      InputError: there is no such measurement, or it applies to none of them.
    """
    modules = known()
    for name in names:
        if name not in modules:
            raise InputError(f"--measure={name} is no measurement; {nearest(name, modules)}")
        reasons = [modules[name].lacks(config, cell.model) for cell in cells]
        if all(reasons):
            raise InputError(f"--measure={name} does not apply here: {reasons[0]}")

    def behind(names: Iterable[str]) -> list[str]:
        return [each for name in names for each in (*behind(getattr(modules[name], "NEEDS", ())), name)]

    return tuple(dict.fromkeys(behind(names or [name for name, module in modules.items() if module.IN_STUDY])))


def measure(study: launch.Study, cells: Iterable[grid.Cell], names: tuple[str, ...]) -> list[grid.Cell]:
    """Takes what is not there of the measurements `names` of every trained pack of `cells`; returns the cells of which
    a checkpoint was lost, which no longer counts as trained."""
    folders = {cell: study.workdir.cell(cell.name) for cell in cells}
    lacking = [cell for cell, folder in folders.items() if _trained(folder) and _lacking(study, cell, folder, names)]
    before = {cell: len(_trained(folders[cell])) for cell in lacking}
    study.run(Job("measure", (cell,), names) for cell in lacking)
    return [cell for cell in lacking if len(_trained(folders[cell])) < before[cell]]


def run(study: launch.Study, job: Job) -> None:
    """The job `measure`: what `measure` does with one cell."""
    (cell,) = job.cells
    folder = study.workdir.cell(cell.name)
    with launch.faults_stay_in(study, cell.name):
        try:
            taken, faults = _Cell(study, folder), {}
            for name in _lacking(study, cell, folder, job.words):
                study.progress.begin(cell.name, f"measuring {name} of the restored checkpoint")
                if not faults.keys() & {*getattr(known()[name], "NEEDS", ())}:
                    try:
                        taken.measure(name)
                    except Exception as error:  # which leaves the other measurements alone
                        if isinstance(error, CorruptCheckpoint) or disk_is_full(error):
                            raise
                        faults[name] = error
            for error in faults.values():
                raise error
        except CorruptCheckpoint as error:
            raise CorruptCheckpoint(
                f"{error} The command with --mode=study trains this cell again, from the checkpoint before if there is "
                f"one."
            ) from error
        if folder.failed:  # before this
            folder.write_status(*launch.outcome(folder, "done"))


class _Cell:
    """One cell whose packs are restored when first needed."""

    def __init__(self, study: launch.Study, folder: CellFolder):
        self._study, self._folder = study, folder
        self._restored: dict[int, Restored] = {}

    def measure(self, name: str) -> None:
        for records, path, key in _unfinished(self._study.config, self._folder, name):
            parts = [self._of_split(name, records, split, key["settings"]) for split in SPLITS]
            rows = pd.concat([part for part in parts if len(part)] or [pd.DataFrame()], ignore_index=True)
            rows.attrs["key"] = key
            files.write_table(path, rows)

    def _of_split(self, name: str, records: list[dict], split: str, settings: dict) -> pd.DataFrame:
        """What is found of the packs `records` that are measured on `split`, behind the columns that say which run, and
        which split, each row is of."""
        mine, module = [record for record in records if split in splits_of(record, self._study.config)], known()[name]
        if not mine:
            return pd.DataFrame()
        restored = [self._restore(record) for record in mine]
        if hasattr(module, "measure_cell"):
            needed = {other: rows_of(self._folder, other) for other in getattr(module, "NEEDS", ())}
            needed = {other: rows[rows.split == split] if len(rows) else rows for other, rows in needed.items()}
            taken = self._study.stop.wait_for(lambda: module.measure_cell(restored, split, settings, needed))
        else:
            taken = self._study.stop.wait_for(lambda: module.measure(*restored, split, settings))
        runs = [replica for record in mine for replica in packs.from_json(record).replicas]
        if {*taken.get("replica", [""])} - {run.name for run in runs}:
            raise ValueError(
                f"the measurement {name} must give a column `replica` of the replicas' names, such as {runs[0].name}; "
                f"its columns are {', '.join(taken)}."
            )
        about = pd.DataFrame([{"replica": run.name, **dataclasses.asdict(run)} for run in runs])[["replica", *RUN]]
        return about.assign(split=split).merge(taken, on="replica", validate="one_to_many")

    def _restore(self, record: dict) -> Restored:
        """The pack of `record`; one whose last checkpoint is lost no longer counts as trained."""
        index, trained = record["index"], record["trained"]
        if index not in self._restored:
            try:
                restored = self._study.stop.wait_for(lambda: restore(self._folder.path, index, self._study.corpus))
                if restored.step != trained["step"]:
                    raise CorruptCheckpoint(
                        f"{self._folder.path} was trained to step {trained['step']}, its checkpoint is of "
                        f"{restored.step}."
                    )
            except CorruptCheckpoint:
                packs.mark_trained(self._folder, packs.from_json(record), None)
                raise
            self._restored[index] = dataclasses.replace(restored, trained=trained)
        return self._restored[index]


def splits_of(record: dict, config: StudyConfig) -> tuple[str, ...]:
    """What a pack is measured on: tune and test, or tune alone where all its runs are of tuning seeds, whose test
    losses nothing may depend on."""
    return SPLITS[:1] if all(grid.chooses(run, config) for run in packs.from_json(record).replicas) else SPLITS


def _trained(folder: CellFolder) -> list[dict]:
    return [record for record in folder.packs() if record["trained"] is not None]


def _unfinished(config: StudyConfig, folder: CellFolder, name: str) -> list[tuple[list[dict], pathlib.Path, dict]]:
    """What is not there of a measurement of a cell's trained packs: packs that are measured together, where what is
    found of them goes, and the key that says that it is of them."""
    module, table, records, lacking = known()[name], table_of(name), _trained(folder), []
    together = hasattr(module, "measure_cell")
    for group in [records] if together else [[record] for record in records]:
        path = folder.measured(table, None if together else group[0]["index"])
        checkpoints = [record["trained"]["checkpoint"] for record in group]
        key = json.loads(json.dumps({"checkpoints": checkpoints, "settings": module.settings(config)}))
        try:
            there = read_table(path).attrs.get("key") == key
        except InputError:
            there = False
        if not there:
            lacking.append((group, path, key))
    return lacking


def _lacking(study: launch.Study, cell: grid.Cell, folder: CellFolder, names: Iterable[str]) -> tuple[str, ...]:
    """Which of `names` apply to the cell, and are not there of all its trained packs."""
    applying = [name for name in names if not known()[name].lacks(study.config, cell.model)]
    return tuple(name for name in applying if _unfinished(study.config, folder, name))


def rows_of(folder: CellFolder, name: str) -> pd.DataFrame:
    """Everything that a measurement found of a cell's trained packs; empty where there is nothing."""
    table = table_of(name)
    paths = [folder.measured(table, record["index"]) for record in _trained(folder)]
    parts = [read_table(path) for path in (*paths, folder.measured(table)) if path.exists()]
    return pd.concat([rows for rows in parts if len(rows)] or [pd.DataFrame()], ignore_index=True)


def merge(workdir: Workdir, cells: Iterable[grid.Cell], name: str) -> pd.DataFrame:
    """Writes results/<table>.parquet, and .csv where it is small, from all that `cells` have; returns it."""
    parts = {cell.name: rows_of(workdir.cell(cell.name), name) for cell in cells}
    parts = [rows.assign(cell=cell)[["cell", *rows.columns]] for cell, rows in parts.items() if len(rows)]
    merged = pd.concat(parts or [pd.DataFrame()], ignore_index=True)
    write(workdir, table_of(name), merged, MOST_CSV_ROWS)
    return merged


def write(workdir: Workdir, name: str, table: pd.DataFrame, most_csv_rows: float = math.inf) -> None:
    """Writes results/<name>.parquet, and .csv of so many rows at most; what has no row is removed."""
    for suffix, most in ((".parquet", math.inf), (".csv", most_csv_rows)):
        path = workdir.results / f"{name}{suffix}"
        if 0 < len(table) <= most:
            files.write_table(path, table)
        else:
            path.unlink(missing_ok=True)
