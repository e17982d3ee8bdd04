"""A study of how many steps each dose of relations needs (claim C4): every cell at every dose finds its rate, then runs
the fresh seeds; then again from other starts (train.run.starts) where the config or a verdict asks for them.

A cell's runs.json has the outcome of each stage that is done, so a study stopped anywhere goes on from there.
"""

import dataclasses
import itertools

import numpy as np

from train import grid
from train.config import InputError, StudyConfig
from train.data.relations import by_hand
from train.files import write_json
from train.grid import Cell, Replica
from train.run import metrics, packs, starts
from train.study import dose_rates, launch, until
from train.study.launch import Study
from train.study.until import Outcome, Program, Runs
from train.workdir import CellFolder, read_json

TUNE, EXTEND, FRESH = "tune", "extend", "fresh"
STAGES = (TUNE, EXTEND, FRESH, *starts.KNOWN)


def name_of(cell: Cell, dose: int) -> str:
    return f"{cell.name}_r{dose}"


def check(config: StudyConfig, cells: tuple[Cell, ...]) -> None:
    """Raises InputError for a field of data that the study would not read, a dose that the language has not, or a start
    that a cell cannot have."""
    _check_read(config)
    for dose, (_, seed) in itertools.product(config.dose.relations, grid.judged_seeds(config)):
        spoken = until.spoken(config.data, dose, seed)
        for start, cell in itertools.product(config.dose.starts, cells):
            if start != starts.HAND_BUILT or cell.model.num_heads == 1:
                starts.check(start, cell.model, spoken)


def _check_read(config: StudyConfig) -> None:
    data, doses = config.data, ",".join(map(str, config.dose.relations))
    if data.language_seed:
        raise InputError(
            f"data.language_seed={data.language_seed} is not read where dose.relations={doses}: every run speaks the "
            f"language of its own seed. Leave it at 0 and choose --config.grid.init_seeds."
        )
    if data.relations.strip().isdigit() and int(data.relations) != len(data.offsets):
        raise InputError(
            f"data.relations={data.relations!r} is not read where dose.relations={doses} says how many relations are "
            f"on; leave it at {len(data.offsets)}, the bits of an answer, and set --config.dose.relations="
            f"{data.relations.strip()} for that dose."
        )


def train(study: Study, cells: tuple[Cell, ...]) -> None:
    """Trains what `cells` lack at every dose; a fault of one leaves the others alone."""
    doses = study.config.dose.relations
    study.progress.expect(len(cells) * len(doses))
    for cell in cells:
        model, _ = packs.resolve(cell, study.config)
        program = Program(model, study.config, grid.most_replicas(study.config))
        for dose in doses:
            name = name_of(cell, dose)
            folder = study.workdir.cell(name)
            with launch.faults_stay_in(study, name):
                folder.write_status("running")
                _train_cell(study, program, folder, name, dose)
                folder.write_status("done")


def _train_cell(study: Study, program: Program, folder: CellFolder, name: str, dose: int) -> None:
    config = study.config

    def stage(which: str, split: str, replicas: tuple[Replica, ...], **more) -> list[Outcome]:
        done = outcomes(folder, which)
        if done is not None:
            return done
        study.progress.begin(name, f"{which}: {len(replicas)} runs")
        runs = Runs(program.model, dose, split, replicas, **more)
        found = until.train(
            program, runs, folder.path / which, config, study.evaluation.excess_of, study.stop, study.progress
        )
        records = read_json(folder.path / "runs.json") or {}
        write_json(folder.path / "runs.json", {**records, which: [dataclasses.asdict(one) for one in found]})
        return found

    rate = _tuned(stage, folder, config) if config.grid.tuning_seeds else config.grid.learning_rates[0]
    fresh = stage(FRESH, "test", grid.replicas((rate,), grid.judged_seeds(config)))
    asked = [start for start in config.dose.starts if start != starts.HAND_BUILT]
    spoken = until.spoken(config.data, dose, config.grid.init_seeds[0])
    if not by_hand.refusal(program.model, spoken) and (
        starts.HAND_BUILT in config.dose.starts
        or study.evaluation.asks_for_hand_built(dose, [run.loss for run in fresh], config)
    ):
        asked.append(starts.HAND_BUILT)
    for start in asked:
        own = starts.learning_rate(start, rate, config.grid.learning_rates)
        stage(start, "test", grid.replicas((own,), grid.judged_seeds(config)), start=start)


def _tuned(stage, folder: CellFolder, config: StudyConfig) -> float:
    """The rate that the tuning seeds choose."""
    rates, seeds = tuple(sorted(config.grid.learning_rates)), grid.choosing_seeds(config)
    tuned = stage(TUNE, "tune", grid.replicas(rates, seeds), compete=True)
    added = dose_rates.extension(rates, chosen(folder)) if config.grid.extensions else None
    if added is not None:
        by_rate = tuple(
            (rate, tuple(run.steps for run in tuned if run.replica.learning_rate == rate)) for rate in rates
        )
        stage(EXTEND, "tune", grid.replicas((added,), seeds), compete=True, known=by_rate)
    return chosen(folder)


def outcomes(folder: CellFolder, stage: str) -> list[Outcome] | None:
    """The outcome of each run of a stage that is done, None before."""
    records = (read_json(folder.path / "runs.json") or {}).get(stage)
    return records and [Outcome(**{**one, "replica": Replica(**one["replica"])}) for one in records]


def looks(folder: CellFolder, stage: str) -> list[dict]:
    """Every look at the runs of a stage: step, replica, loss and, by name, relations, in nats a bit above the floor."""
    return metrics.read(folder.path / stage / "looks.jsonl")


def chosen(folder: CellFolder) -> float:
    """The rate of the lowest median T among those that were tried."""
    steps, curves = {}, []
    for stage in (TUNE, EXTEND):
        for run in outcomes(folder, stage) or ():
            steps.setdefault(run.replica.learning_rate, []).append(run.steps)
            mine = {line["step"]: line["loss"] for line in looks(folder, stage) if line["replica"] == run.replica.name}
            curves.append((run.replica.learning_rate, mine))
    common = set.intersection(*(set(curve) for _, curve in curves))
    losses = {rate: [] for rate in steps}
    for rate, curve in curves:
        losses[rate].append(curve[max(common)] if common and curve[max(common)] is not None else np.inf)
    return dose_rates.best_rate(steps, {rate: float(np.mean(values)) for rate, values in losses.items()})
