"""The stages of a study: every cell tries every rate with the tuning seeds, keeps its best, and trains the fresh seeds.
Of several logit scales a shape keeps the best alone.

Each stage is what the cells lack, so a study stopped anywhere goes on from there. Cells of one corpus are tuned
together; a cell of a dose is tuned alone, so one worker takes it through all its stages.
"""

import dataclasses
import itertools

from train import grid
from train.config import StudyConfig
from train.data.relations import by_hand, doses
from train.hosts.workers import Job
from train.run import starts
from train.study import launch, tuning


def check(config: StudyConfig, cells: tuple[grid.Cell, ...]) -> None:
    """Raises InputError for a field of data that a study of doses would not read, a dose that its language has not, or
    a start that a cell cannot have."""
    if not config.dose.relations:
        return
    doses.check(config)
    for cell, (_, seed) in itertools.product(cells, grid.judged_seeds(config)):
        spoken = doses.spoken(config.data, cell.dose, seed)
        for start in config.dose.starts:
            if start != starts.HAND_BUILT or cell.model.num_heads == 1:
                starts.check(start, cell.model, spoken)


def go_through(study: launch.Study, every_cell: tuple[grid.Cell, ...], cells: tuple[grid.Cell, ...]) -> None:
    """Trains what `cells` lack; without tuning seeds that is every rate with every seed.

    Args:
      every_cell: the whole grid: rates are chosen once all of it is tuned, since a rate that one cell calls for is
        tried by all.
    """
    if study.corpus is None:
        study.run([Job("train_alone", (cell,)) for cell in cells if _next(study, cell) is not None])
    elif not study.config.grid.tuning_seeds:
        launch.train_cells(study, cells)
    else:
        _train_together(study, every_cell, cells)


def train_alone(study: launch.Study, job: Job) -> None:
    """The job `train_alone`: takes one cell through all its stages."""
    (cell,) = job.cells
    with launch.faults_stay_in(study, cell.name):
        while (stage := _next(study, cell)) is not None:
            launch.train_packs(study, *stage)


def _next(study: launch.Study, cell: grid.Cell) -> tuple[grid.Cell, str] | None:
    """The cell with the replicas of its next stage, and its state after that; None once it has had all."""
    config, status = study.config, study.workdir.cell(cell.name).status()["state"]
    rate = config.grid.learning_rates[0]
    if config.grid.tuning_seeds:
        tuned = tuning.read(config, study.workdir, (cell,), tuning.score_of(config, study.corpus))
        if tuned.lacking:
            return dataclasses.replace(cell, replicas=grid.replicas(tuned.rates, grid.choosing_seeds(config))), "tuned"
        rate = tuned.chosen[cell.name]
    final = dataclasses.replace(cell, replicas=_final(config, cell, rate))
    done = not launch.lacks_runs(study.workdir, final) and status in ("done", "diverged")
    return None if done else (final, "done")


def _final(config: StudyConfig, cell: grid.Cell, rate: float) -> tuple[grid.Replica, ...]:
    """The runs of fresh seeds at the rate that `cell` keeps, from drawn weights and from the config's other starts."""
    others = [start for start in config.dose.starts if start != starts.HAND_BUILT or not refuses_by_hand(config, cell)]
    drawn = grid.replicas((rate,), grid.judged_seeds(config)) + grid.repeated(config, (rate,))
    return sum((started(config, start, rate) for start in others), drawn)


def refuses_by_hand(config: StudyConfig, cell: grid.Cell) -> bool:
    return bool(by_hand.refusal(cell.model, doses.spoken(config.data, cell.dose, config.grid.init_seeds[0])))


def started(config: StudyConfig, start: str, rate: float) -> tuple[grid.Replica, ...]:
    """The runs of fresh seeds from a start, of a cell that keeps `rate`."""
    own = starts.learning_rate(start, rate, config.grid.learning_rates)
    return grid.replicas((own,), grid.judged_seeds(config), start)


def _train_together(study: launch.Study, every_cell: tuple[grid.Cell, ...], cells: tuple[grid.Cell, ...]) -> None:
    tuned = _tune(study, every_cell, cells)
    waiting = [name for name in tuned.lacking if not study.workdir.cell(name).failed]
    if waiting:
        study.progress.say(
            f"No rate is chosen before every cell has tried {len(tuned.rates)} rates; {', '.join(waiting)} have not: "
            f"the same command without --cells trains them."
        )
        return
    passed_over = tuning.passed_over(tuned, every_cell)
    for name, winner in passed_over.items():
        study.workdir.cell(name).write_status("passed_over", f"{winner} has the lower tune loss and is judged")
    final = [
        dataclasses.replace(cell, replicas=_final(study.config, cell, tuned.chosen[cell.name]))
        for cell in cells
        if cell.name not in {*tuned.lacking, *passed_over}
    ]
    launch.train_cells(study, final)


def _tune(study: launch.Study, every_cell: tuple[grid.Cell, ...], cells: tuple[grid.Cell, ...]) -> tuning.Tuning:
    """Trains rates x tuning seeds of `cells`, again wherever a best rate at an edge has extended the rates."""
    score, done = tuning.score_of(study.config, study.corpus), ()
    tuned = tuning.read(study.config, study.workdir, every_cell, score)
    while tuned.rates != done:
        if done:
            added = ", ".join(f"{rate:g}" for rate in sorted({*tuned.rates} - {*done}))
            study.progress.say(f"A best rate lies at the edge, so every cell also tries {added}.")
        replicas = grid.replicas(tuned.rates, grid.choosing_seeds(study.config))
        lacking = [dataclasses.replace(cell, replicas=replicas) for cell in cells if cell.name in tuned.lacking]
        launch.train_cells(study, tuple(lacking), end="tuned")
        done, tuned = tuned.rates, tuning.read(study.config, study.workdir, every_cell, score)
    return tuned
