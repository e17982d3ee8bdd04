"""A study from its first check to its last table: train the grid, evaluate every cell from its checkpoint, report."""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable

from rich.console import Console

from train import grid
from train.config import InputError, StudyConfig, freeze, nearest
from train.data import corpora, sources
from train.grid import Cell
from train.hosts import placement
from train.hosts.preemption import Notice, Preempted
from train.hosts.slots import Launcher
from train.hosts.workers import Workers
from train.study.progress import StudyProgress
from train.workdir import Workdir, disk_is_full

DONE, FAULT, SOME_CELL_FAILED, RUN_AGAIN = 0, 1, 3, 75
TRAINING = ("study", "train")  # the modes that train


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a study calls of eval/, which training must not import.

    Attributes:
      document_losses: summed losses of a pack in memory (train.losses.documents.document_losses).
      prospect: what the config's seeds can decide, in words (eval.judge.paired.decision.prospect).
      evaluate_pack: losses of a restored pack, as a table (eval.tables.evaluate_pack).
      write_tables: results/ from all evaluated cells (eval.tables.write_tables).
      load_arms: studies beside this one, by workdir (eval.judge.arms.load).
      evidence: what the claims are judged on (eval.judge.evidence.Evidence).
      cells_to_price: whose steps are compared (eval.judge.verdicts.cells_to_price).
      write_verdicts: results/claims.json (eval.judge.verdicts.write).
      write_report: the page (eval.report.page.write); returns its path.
      excess_of: relational losses of runs in memory (train.losses.answers.excess_of).
      asks_for_hand_built: whether C4b's rule wants runs from weights by hand (eval.judge.claims.c4b_capacity).
      write_doses: results/dose.csv (eval.doses.write_table).
      show_cells: prints the results (eval.summary.show_cells).
      show_verdicts: prints the verdicts (eval.summary.show_verdicts).
      show_status: prints a workdir's state (eval.summary.show_status).
    """

    document_losses: Callable
    prospect: Callable
    evaluate_pack: Callable
    write_tables: Callable
    load_arms: Callable
    evidence: Callable
    cells_to_price: Callable
    write_verdicts: Callable
    write_report: Callable
    excess_of: Callable
    asks_for_hand_built: Callable
    write_doses: Callable
    show_cells: Callable
    show_verdicts: Callable
    show_status: Callable


def run(
    config: StudyConfig,
    mode: str,
    path: pathlib.Path,
    names: list[str],
    arms: list[str],
    evaluation: Evaluation,
    stop: Notice,
    launcher: Launcher,
) -> int:
    """Runs `mode` in the workdir at `path`; returns the exit code.

    Args:
      config: of the study; modes eval, report and status read the workdir's own instead.
      names: cells to train or evaluate; empty for all. Tables and report always hold every evaluated cell.
      arms: workdirs of studies beside this one, which the verdicts cite.
      launcher: where cells train and are evaluated.

    Raises:
      InputError: bad input, before anything is trained.
    """
    console, workdir = Console(), Workdir(path)
    if mode == "data":
        from train.study import preview

        with stop.at_once():
            preview.show(console, config)
        return DONE
    if mode in ("eval", "report", "status"):
        config = _recorded(workdir)
    every_cell = grid.cells_of(config, sources.vocab_size(config.data))
    cells = _chosen(every_cell, names)
    if mode in TRAINING and config.dose.relations:
        from train.study import dose_study

        dose_study.check(config, cells)
    if mode == "status":
        evaluation.show_status(console, workdir, _folders(config, cells))
        return DONE
    beside = evaluation.load_arms(arms, json.loads(json.dumps(dataclasses.asdict(config))))
    try:
        workdir.make_writable()
        with workdir.lock() as lock:
            console.print(f"Headroom: {len(cells)} cells in {path}", highlight=False, markup=False)
            if mode in TRAINING and not config.dose.relations:
                console.print(evaluation.prospect(config), highlight=False)
            with stop.at_once():
                workers = placement.workers_for(launcher, config, workdir, every_cell)
                corpus = _corpus(config, mode, workdir, every_cell, cells, workers)
            for note in corpus.notes:
                console.print(note, highlight=False, markup=False)
            with Workers(launcher.command, workers, workdir, lock, stop) as pool:
                return _write(config, mode, workdir, corpus, every_cell, cells, beside, evaluation, console, stop, pool)
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


def _folders(config: StudyConfig, cells: tuple[Cell, ...]) -> list[str]:
    """The names of what trains: the cells, or each of them at every dose."""
    from train.study import dose_study

    doses = config.dose.relations
    return [dose_study.name_of(cell, dose) for cell in cells for dose in doses] or [cell.name for cell in cells]


def _recorded(workdir: Workdir) -> StudyConfig:
    record = workdir.record()
    if record is None:
        raise InputError(f"--workdir={workdir.path} holds no study (no config.json); run one there first.")
    try:
        return freeze(record["config"])
    except (InputError, AttributeError, TypeError) as error:
        raise InputError(f"{workdir.path / 'config.json'} is not of this version: {error}") from error


def _chosen(cells: tuple[Cell, ...], names: list[str]) -> tuple[Cell, ...]:
    known = {cell.name: cell for cell in cells}
    for name in names:
        if name not in known:
            raise InputError(f"--cells names {name!r}, which is not in the grid; {nearest(name, known)}")
    return tuple(known[name] for name in known if not names or name in names)


def _corpus(
    config: StudyConfig,
    mode: str,
    workdir: Workdir,
    every_cell: tuple[Cell, ...],
    cells: tuple[Cell, ...],
    workers: int,
) -> corpora.Corpus:
    """The workdir's corpus, written first if no study has begun here and nothing speaks against it."""
    import jax

    from train.study import launch

    workdir.check_continues(config)
    jax.config.update("jax_enable_x64", config.model.dtype == "float64")
    if mode in TRAINING:
        launch.check(config, workdir, every_cell, cells, workers, corpus_tokens=0)
    record = workdir.record()
    if record is None:
        shutil.rmtree(workdir.data, ignore_errors=True)
        return corpora.write_corpus(config.data, workdir.data)
    corpus = corpora.open_corpus(workdir.data)
    if corpus.fingerprint != record["data_fingerprint"]:
        raise InputError(
            f"{workdir.data} holds data {corpus.fingerprint[:12]}, and the study began with "
            f"{record['data_fingerprint'][:12]}; restore the folder, or start again with a new --workdir."
        )
    return corpus


def _write(config, mode, workdir, corpus, every_cell, cells, beside, evaluation, console, stop, pool) -> int:
    import jax

    from train.hosts import compile_cache
    from train.study import launch, prices, stages, timing

    compile_cache.use(lambda text: console.print(text, highlight=False, markup=False))
    if mode in TRAINING:
        launch.check(config, workdir, every_cell, cells, pool.count, len(corpus.tokens))
        workdir.write_record(config, jax.devices()[0].device_kind, corpus.fingerprint)
    if config.dose.relations:
        return _write_dose(config, mode, workdir, corpus, every_cell, cells, beside, evaluation, console, stop)
    with StudyProgress(console, config.train.steps) as progress:
        study = launch.Study(config, workdir, corpus, evaluation, stop, progress, pool if pool.count else None)
        if mode in TRAINING:
            stages.train(study, every_cell, cells, evaluate=mode == "study")
        if mode == "eval":
            launch.evaluate_cells(study, cells)
        if mode == "study":
            launch.time_cells(study, cells)
        untimed = [cell.name for cell in timing.lacking(study, cells)] if mode == "study" else []
        pool.leave()
        progress.begin("results", "writing tables")
        with stop.at_once():
            table = evaluation.write_tables(workdir, every_cell, config, corpus)
        evidence = evaluation.evidence(workdir, config, corpus, table, arms=beside)
        priced = mode != "study" or prices.measure(study, evaluation.cells_to_price(evidence), config.claims.launches)
        progress.begin("results", "verdicts and the report")
        with stop.at_once():
            verdicts = evaluation.write_verdicts(evidence)
            page = evaluation.write_report(evidence, verdicts) if len(table) else None
    evaluation.show_cells(console, workdir, every_cell, table)
    evaluation.show_verdicts(console, verdicts, page)
    if table.empty:
        console.print("No judged run is evaluated yet, so there is no table of cells; --mode=study makes it.")
    failed = [cell.name for cell in cells if workdir.cell(cell.name).failed]
    if failed:
        console.print(f"Not done: {', '.join(failed)}. The same command tries them again.")
    if untimed:
        console.print(f"No step times: {', '.join(untimed)}. The same command measures them.")
    if not priced:
        console.print("No price: a launch failed. The same command tries it again.")
    return DONE if priced and not (failed or untimed) else SOME_CELL_FAILED


def _write_dose(config, mode, workdir, corpus, every_cell, cells, beside, evaluation, console, stop) -> int:
    """As `_write`, of a study of the steps that each dose of relations needs."""
    from train.study import dose_study, launch

    with StudyProgress(console, config.train.steps) as progress:
        study = launch.Study(config, workdir, corpus, evaluation, stop, progress)
        if mode in TRAINING:
            dose_study.train(study, cells)
        progress.begin("results", "verdicts and the report")
        with stop.at_once():
            table = evaluation.write_doses(workdir, every_cell, config)
            evidence = evaluation.evidence(workdir, config, doses=table, arms=beside)
            verdicts = evaluation.write_verdicts(evidence)
            page = evaluation.write_report(evidence, verdicts)
    evaluation.show_verdicts(console, verdicts, page)
    failed = [name for name in _folders(config, cells) if workdir.cell(name).failed]
    if failed:
        console.print(f"Not done: {', '.join(failed)}. The same command tries them again.")
    return SOME_CELL_FAILED if failed else DONE
