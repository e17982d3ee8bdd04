"""A study from its first check to its last table, top to bottom: tune, choose, train, measure, judge, show; then time,
judge what that tells, and show again."""

import dataclasses
import json
import os
import pathlib
import shutil
import sys

import jax
from rich.console import Console

from eval import measurements, summary, tables
from eval.judge import arms as arms_beside
from eval.judge import verdicts
from eval.judge.evidence import Evidence
from eval.judge.paired.decision import prospect
from eval.judge.verdict import Verdict
from eval.report import page
from train import grid
from train.config import InputError, StudyConfig, freeze, nearest, refuse
from train.data import corpora, sources
from train.exit_codes import DONE, FAULT, RUN_AGAIN, SOME_CELL_FAILED
from train.grid import Cell
from train.hosts import compile_cache, placement
from train.hosts.preemption import Notice, Preempted
from train.hosts.slots import Launcher
from train.hosts.workers import Workers
from train.progress import StudyProgress
from train.run import feed, starts
from train.study import launch, preview, prices, recovery, stages, timing, worker
from train.study.launch import Study
from train.workdir import Workdir, disk_is_full

TRAINING = ("study", "train")  # the modes that train
JOBS = {
    "train": launch.train_one,
    "train_alone": stages.train_alone,
    "measure": measurements.run,
    "time": timing.time,
}


def work(workdir: str, stop: Notice) -> int:
    """What a worker of the study in `workdir` does; does not return."""
    return worker.main(workdir, JOBS, stop)


def run(
    config: StudyConfig,
    path: pathlib.Path,
    mode: str,
    cells: list[str],
    arms: list[str],
    measure: list[str],
    launcher: Launcher,
    stop: Notice,
) -> int:
    """Runs `mode` in the workdir at `path`; returns the exit code.

    Args:
      config: of the study; modes eval, report and status read the workdir's own instead.
      cells: names of those to train or measure, one without its dose for all doses; empty for all. Tables and
        page always hold every measured cell.
      arms: workdirs of studies beside this one, which the verdicts cite.
      measure: names of measurements; empty for those of every study.
      launcher: where cells train and are measured.

    Raises:
      InputError: bad input, before anything is trained.
    """
    console, workdir = Console(highlight=False), Workdir(path)
    refuse(
        measure
        and mode not in ("study", "eval")
        and f"--measure={','.join(measure)} is for --mode=study and --mode=eval; drop it."
    )
    if mode == "data":
        with stop.at_once():
            preview.show(console, config)
        return DONE
    older = workdir.cells_of_older_format() if mode == "status" else None
    if older is not None:
        summary.show_status(console, workdir, [name for name in older if not cells or name in cells])
        return DONE
    if mode in ("eval", "report", "status"):
        record = workdir.record()
        refuse(record is None and f"--workdir={path} holds no study (no config.json); run one there first.")
        try:
            config = freeze(record["config"])
        except (InputError, AttributeError, TypeError) as error:
            raise InputError(f"{path / 'config.json'} is not of this version: {error}") from error
    workdir.record()  # one that cannot be continued is refused before anything is said or written
    every_cell = grid.cells_of(config, sources.vocab_size(config.data))
    known = {name for cell in every_cell for name in (cell.name, cell.shape)}
    strange = [name for name in cells if name not in known]
    refuse(strange and f"--cells names {strange[0]!r}, which is not in the grid; {nearest(strange[0], known)}")
    shapes = [cell.name for cell in every_cell]
    refuse(
        config.claims.cell not in ("", *shapes)
        and f"claims.cell={config.claims.cell} is no cell of this grid; {nearest(config.claims.cell, shapes)} Or leave "
        "it empty, --config.claims.cell=."
    )
    chosen = tuple(cell for cell in every_cell if not cells or {cell.name, cell.shape} & {*cells})
    if mode in TRAINING:
        stages.check(config, chosen)
    if mode == "status":
        summary.show_status(console, workdir, [cell.name for cell in chosen])
        return DONE
    names = measurements.asked(measure, config, chosen)
    beside = arms_beside.load(arms, json.loads(json.dumps(dataclasses.asdict(config))))
    try:
        workdir.make_writable()
        with workdir.lock() as lock:
            console.print(f"Headroom: {len(chosen)} cells in {path}", markup=False)
            if mode in TRAINING and not config.dose.relations:
                console.print(prospect(config))
            with stop.at_once():
                workers = placement.workers_for(launcher, config, workdir, every_cell)
                corpus = _begin(config, mode, workdir, every_cell, chosen, workers)
            for note in corpus.notes if corpus else ():
                console.print(note, markup=False)
            compile_cache.use(lambda text: console.print(text, markup=False))
            with Workers(launcher.command, workers, workdir, lock, stop) as pool:
                with StudyProgress(console, config.train.steps) as progress:
                    study = Study(config, workdir, corpus, JOBS, stop, progress, pool if workers else None)
                    return _tell(study, mode, every_cell, chosen, names, beside)
    except Preempted:
        console.print("Stopped as asked; what is done is saved. Run the same command again to continue.")
        sys.stdout.flush()
        os._exit(RUN_AGAIN)  # a compile may still run in a thread, and would be waited for
    except Exception as error:
        if not disk_is_full(error):
            raise
        print(
            f"Error: the disk of {path} is full; finished cells are whole, so free space and run the same command "
            f"again to continue.",
            file=sys.stderr,
        )
        return FAULT


def _begin(
    config: StudyConfig, mode: str, workdir: Workdir, every_cell: tuple[Cell, ...], cells: tuple[Cell, ...], count: int
) -> corpora.Corpus | None:
    """The workdir's corpus, written first if no study has begun here and nothing speaks against it; None where every
    seed speaks a language of its own.

    Args:
      count: of workers.
    """
    workdir.check_continues(config)
    jax.config.update("jax_enable_x64", config.model.dtype == "float64")
    if mode in TRAINING:
        launch.check(config, workdir, every_cell, cells, count, corpus_tokens=0)
    record, corpus = workdir.record(), None
    if not config.dose.relations and record:
        corpus = corpora.open_corpus(workdir.data)
    elif not config.dose.relations:
        shutil.rmtree(workdir.data, ignore_errors=True)
        corpus = corpora.write_corpus(config.data, workdir.data)
    fingerprint = feed.fingerprint(config, corpus)
    refuse(
        record
        and fingerprint != record["data_fingerprint"]
        and f"{workdir.data} holds data {fingerprint[:12]}, and the study began with "
        f"{record['data_fingerprint'][:12]}; restore the folder, or start again with a new --workdir."
    )
    if mode in TRAINING:
        launch.check(config, workdir, every_cell, cells, count, len(corpus.tokens) if corpus else 0)
        workdir.write_record(config, jax.devices()[0].device_kind, fingerprint)
    return corpus


def _tell(
    study: Study, mode: str, every_cell: tuple[Cell, ...], cells: tuple[Cell, ...], names: tuple[str, ...], beside: list
) -> int:
    """The story; returns the exit code."""
    console = study.progress.console
    if mode in TRAINING:
        stages.go_through(study, every_cell, cells)
    if mode in ("study", "eval"):
        _measure(study, mode, every_cell, cells, names)
    evidence = _evidence(study, every_cell, beside)
    if mode in TRAINING and (further := _further(evidence, cells)):
        launch.train_cells(study, further)
        if mode == "study":
            _measure(study, mode, every_cell, cells, names)
        evidence = _evidence(study, every_cell, beside)
    asked = None
    while mode == "study" and (coming := _recoveries(evidence, cells)) and coming != asked:
        launch.train_cells(study, coming)
        _measure(study, mode, every_cell, cells, names)
        evidence, asked = _evidence(study, every_cell, beside), coming
    untimed, priced, shown = [], True, []
    if mode == "study" and study.corpus is not None:
        to_price, launches = verdicts.cells_to_price(evidence), study.config.claims.launches
        if prices.lacking(study.workdir, to_price, launches):  # which takes minutes
            judged, written = _judge(study, evidence)
            summary.show_verdicts(console, judged, written)
            shown = [verdict.sentence for verdict in judged]
        untimed = timing.time_cells(study, cells)
        if study.workers:
            study.workers.leave()
        priced = prices.measure(study, to_price, launches)
        evidence = _evidence(study, every_cell, beside)
    judged, written = _judge(study, evidence)
    study.progress.close()
    if study.corpus is not None:
        summary.show_cells(console, study.workdir, evidence.cells)
        if evidence.cells.empty:
            console.print("No judged run is measured yet, so there is no table of cells; --mode=study makes it.")
    summary.show_verdicts(console, [verdict for verdict in judged if verdict.sentence not in shown], written)
    failed = [cell.name for cell in cells if study.workdir.cell(cell.name).failed]
    lacking = {
        f"Not done: {', '.join(failed)}. The same command tries them again.": failed,
        f"No step times: {', '.join(untimed)}. The same command measures them.": untimed,
        "No price: a launch failed. The same command tries it again.": not priced,
    }
    for sentence in [sentence for sentence, lacks in lacking.items() if lacks]:
        console.print(sentence)
    return SOME_CELL_FAILED if any(lacking.values()) else DONE


def _measure(study: Study, mode: str, every_cell, cells, names: tuple[str, ...]) -> None:
    """Measures what is not; a cell whose checkpoint is lost is trained again, from the one before if there is one."""
    lost = measurements.measure(study, cells, names)
    tries = max((len(study.workdir.cell(cell.name).packs()) for cell in lost), default=0)
    while lost and mode == "study" and tries:  # a measurement ends at the first pack that is lost
        for cell in lost:
            study.progress.say(f"{cell.name}: Training it again from the checkpoint before, if there is one.")
        stages.go_through(study, every_cell, cells)
        lost, tries = measurements.measure(study, cells, names), tries - 1


def _evidence(study: Study, every_cell: tuple[Cell, ...], beside: list[arms_beside.Arm]) -> Evidence:
    """What claims are judged on, its tables written."""
    study.progress.begin("results", "tables")
    with study.stop.at_once():
        table = tables.write_tables(study.workdir, every_cell, study.config, study.corpus)
        of = {"doses": table} if study.corpus is None else {"cells": table}
        return Evidence(study.workdir, study.config, study.corpus, arms=beside, **of)


def _judge(study: Study, evidence: Evidence) -> tuple[list[Verdict], pathlib.Path | None]:
    """The verdicts, and the page's path, None before there is anything to show."""
    study.progress.begin("results", "verdicts and the report")
    with study.stop.at_once():
        judged = verdicts.write(evidence)
        anything = len(evidence.cells) + len(evidence.doses)
        return judged, page.write(evidence, judged) if anything else None


def _further(evidence: Evidence, cells: tuple[Cell, ...]) -> list[Cell]:
    """The cells with the runs that claims ask for beyond the config, and that they lack."""
    wanted, config = set(verdicts.further(evidence)), evidence.config
    asked = [cell for cell in cells if (cell.shape, cell.dose) in wanted and not stages.refuses_by_hand(config, cell)]
    runs = stages.started(config, starts.HAND_BUILT, config.grid.learning_rates[0]) if asked else ()
    by_hand = [dataclasses.replace(cell, replicas=runs) for cell in asked]
    return [cell for cell in by_hand if launch.lacks_runs(evidence.workdir, cell)]


def _recoveries(evidence: Evidence, cells: tuple[Cell, ...]) -> list[Cell]:
    """The cells with the runs that claims want to go on from trained ones without some heads, which are noted down."""
    if evidence.cells.empty:
        return []
    found = []
    for cell in cells:
        mine = [(replica, heads) for name, replica, heads in verdicts.recoveries(evidence) if name == cell.name]
        if mine:
            recovery.note(evidence.workdir.cell(cell.name), mine)
            found.append(
                dataclasses.replace(cell, replicas=tuple(sorted((run for run, _ in mine), key=lambda run: run.start)))
            )
    return found
