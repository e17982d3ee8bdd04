"""Measurements on restored cells: found in eval/measure, run once a checkpoint, merged into results/.

A measurement is a module of eval/measure. Its name is the module's, its title the first line of the docstring, and it
has

  IN_STUDY      whether every study takes it; others are asked for by --measure alone
  lacks         (config, model) -> '', or the sentence why it does not apply
  settings      (config) -> what of the config shapes it, as JSON; with the checkpoints its key
  measure       (restored, split, settings) -> a DataFrame with a column `replica`, of names, for each pack

or, where it compares packs or NEEDS other measurements, a tuple of names,

  measure_cell  ([restored, ...], split, settings, {name: rows of the split}) -> the same, for all packs of a cell.

TABLE, where it has one, names its files otherwise than the module.
"""

import dataclasses
import pathlib
import types
from collections.abc import Iterable

import pandas as pd

import eval.measure
from eval import walk
from eval.restore import Restored, restore
from train import files, grid
from train.config import InputError, StudyConfig, nearest
from train.grid import Cell
from train.hosts.job import Job
from train.run import packs
from train.run.checkpoint import CorruptCheckpoint
from train.study import launch
from train.study.launch import Study
from train.workdir import CellFolder, Workdir, read_table

SPLITS = ("tune", "test")
RUN = ["learning_rate", "init_seed", "data_seed"]  # of a replica, beside its name
MOST_CSV_ROWS = 20_000  # of a table that is written as CSV too


def known() -> dict[str, types.ModuleType]:
    """Every measurement by name."""
    return {module.__name__.rpartition(".")[2]: module for module in walk.modules(eval.measure)}


def table_of(name: str) -> str:
    return getattr(known()[name], "TABLE", name)


def title_of(name: str) -> str:
    return known()[name].__doc__.splitlines()[0]


def asked(names: list[str], config: StudyConfig, cells: Iterable[Cell]) -> tuple[str, ...]:
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
    wanted: list[str] = []

    def add(name: str) -> None:
        for other in getattr(modules[name], "NEEDS", ()):
            add(other)
        if name not in wanted:
            wanted.append(name)

    for name in names or [name for name, module in modules.items() if module.IN_STUDY]:
        add(name)
    return tuple(wanted)


def measure(study: Study, cells: Iterable[Cell], names: tuple[str, ...]) -> list[Cell]:
    """Takes what is not there of the measurements `names` of every trained pack of `cells`; returns the cells of which
    a checkpoint was lost, which no longer counts as trained."""
    trained = [cell for cell in cells if _trained(study.workdir.cell(cell.name))]
    lacking = [cell for cell in trained if _lacking(study, cell, names)]
    before = {cell.name: len(_trained(study.workdir.cell(cell.name))) for cell in lacking}
    study.run(Job("measure", (cell,), names) for cell in lacking)
    return [cell for cell in lacking if len(_trained(study.workdir.cell(cell.name))) < before[cell.name]]


def run(study: Study, job: Job) -> None:
    """The job `measure`: what `measure` does with one cell."""
    (cell,) = job.cells
    folder = study.workdir.cell(cell.name)
    with launch.faults_stay_in(study, cell.name):
        try:
            _Cell(study, cell, folder).measure(_lacking(study, cell, job.words))
        except CorruptCheckpoint as error:
            raise CorruptCheckpoint(
                f"{error} The command with --mode=study trains this cell again, from the checkpoint before if there is "
                f"one."
            ) from error
        if folder.failed:  # before this
            folder.write_status(*launch.outcome(folder, "done"))


class _Cell:
    """One cell whose packs are restored when first needed."""

    def __init__(self, study: Study, cell: Cell, folder: CellFolder):
        self._study, self._cell, self._folder = study, cell, folder
        self._restored: dict[int, Restored] = {}

    def measure(self, names: Iterable[str]) -> None:
        records = _trained(self._folder)
        for name in names:
            module = known()[name]
            self._study.progress.begin(self._cell.name, f"measuring {name} of the restored checkpoint")
            if hasattr(module, "measure_cell"):
                path, key = _finished_as(self._study.config, self._folder, name, records)
                self._write(path, key, [self._of_cell(module, records, split, key["settings"]) for split in SPLITS])
                continue
            for record in records:
                path, key = _finished_as(self._study.config, self._folder, name, [record])
                if not _is_finished(path, key):
                    self._write(path, key, [self._of_pack(module, record, split, key["settings"]) for split in SPLITS])

    def _of_pack(self, module, record: dict, split: str, settings: dict) -> pd.DataFrame:
        if split not in splits_of(record, self._study.config):
            return pd.DataFrame()
        restored = self._restore(record)
        found = self._study.stop.wait_for(lambda: module.measure(restored, split, settings))
        return _with_runs(found, split, [record])

    def _of_cell(self, module, records: list[dict], split: str, settings: dict) -> pd.DataFrame:
        mine = [record for record in records if split in splits_of(record, self._study.config)]
        if not mine:
            return pd.DataFrame()
        restored = [self._restore(record) for record in mine]
        needed = {}
        for name in getattr(module, "NEEDS", ()):
            rows = rows_of(self._folder, name)
            needed[name] = rows[rows.split == split] if len(rows) else rows
        found = self._study.stop.wait_for(lambda: module.measure_cell(restored, split, settings, needed))
        return _with_runs(found, split, mine)

    def _restore(self, record: dict) -> Restored:
        """The pack of `record`; one whose last checkpoint is lost no longer counts as trained."""
        index = record["index"]
        if index not in self._restored:
            try:
                found = self._study.stop.wait_for(lambda: restore(self._folder.path, index, self._study.corpus))
                if found.step != record["trained"]["step"]:
                    raise CorruptCheckpoint(
                        f"{self._folder.path} was trained to step {record['trained']['step']}, its checkpoint is of "
                        f"{found.step}."
                    )
            except CorruptCheckpoint:
                packs.mark_trained(self._folder, packs.from_json(record), None)
                raise
            self._restored[index] = dataclasses.replace(found, trained=record["trained"])
        return self._restored[index]

    def _write(self, path: pathlib.Path, key: dict, parts: list[pd.DataFrame]) -> None:
        rows = pd.concat([part for part in parts if len(part)] or [pd.DataFrame()], ignore_index=True)
        rows.attrs["key"] = key
        files.write_table(path, rows)


def splits_of(record: dict, config: StudyConfig) -> tuple[str, ...]:
    """What a pack is measured on: tune and test, or tune alone where all its runs are of tuning seeds, whose test
    losses nothing may depend on."""
    return SPLITS[:1] if all(grid.chooses(run, config) for run in packs.from_json(record).replicas) else SPLITS


def _with_runs(rows: pd.DataFrame, split: str, records: list[dict]) -> pd.DataFrame:
    """`rows` behind the columns that say which run, and which split, each is of."""
    runs = [replica for record in records for replica in packs.from_json(record).replicas]
    about = pd.DataFrame([{"replica": run.name, **dataclasses.asdict(run)} for run in runs])[["replica", *RUN]]
    return about.assign(split=split).merge(rows, on="replica", validate="one_to_many")


def _trained(folder: CellFolder) -> list[dict]:
    return [record for record in folder.packs() if record["trained"] is not None]


def _finished_as(config: StudyConfig, folder: CellFolder, name: str, records: list[dict]) -> tuple[pathlib.Path, dict]:
    """Where a measurement of the packs `records` is, and the key that says that it is of them."""
    of_all, table = hasattr(known()[name], "measure_cell"), table_of(name)
    path = folder.measured_of_all(table) if of_all else folder.measured(table, records[0]["index"])
    checkpoints = [record["trained"]["checkpoint"] for record in records]
    return path, {"checkpoints": checkpoints, "settings": known()[name].settings(config)}


def _is_finished(path: pathlib.Path, key: dict) -> bool:
    try:
        return read_table(path).attrs.get("key") == key
    except InputError:
        return False


def _lacking(study: Study, cell: Cell, names: Iterable[str]) -> tuple[str, ...]:
    """Which of `names` apply to the cell, and are not there of all its trained packs."""
    config, folder = study.config, study.workdir.cell(cell.name)
    records, lacking = _trained(folder), []
    for name in names:
        if known()[name].lacks(config, cell.model):
            continue
        together = hasattr(known()[name], "measure_cell")
        groups = [records] if together else [[record] for record in records]
        if not all(_is_finished(*_finished_as(config, folder, name, group)) for group in groups):
            lacking.append(name)
    return tuple(lacking)


def rows_of(folder: CellFolder, name: str) -> pd.DataFrame:
    """Everything that a measurement found of a cell's trained packs; empty where there is nothing."""
    table = table_of(name)
    paths = [folder.measured(table, record["index"]) for record in _trained(folder)]
    found = [read_table(path) for path in (*paths, folder.measured_of_all(table)) if path.exists()]
    return pd.concat([rows for rows in found if len(rows)] or [pd.DataFrame()], ignore_index=True)


def merge(workdir: Workdir, cells: Iterable[Cell], name: str) -> pd.DataFrame:
    """Writes results/<table>.parquet, and .csv where it is small, from all that `cells` have; returns it."""
    parts = {cell.name: rows_of(workdir.cell(cell.name), name) for cell in cells}
    parts = [rows.assign(cell=cell)[["cell", *rows.columns]] for cell, rows in parts.items() if len(rows)]
    merged = pd.concat(parts or [pd.DataFrame()], ignore_index=True)
    for suffix, wanted in ((".parquet", len(merged)), (".csv", 0 < len(merged) <= MOST_CSV_ROWS)):
        path = workdir.results / f"{table_of(name)}{suffix}"
        if wanted:
            files.write_table(path, merged)
        else:
            path.unlink(missing_ok=True)
    return merged
