"""The stages of a study: every cell tries every rate with the tuning seeds, keeps its best, and trains the fresh seeds.
Of several logit scales a shape keeps the best alone.

Each stage is what the cells lack, so a study stopped anywhere goes on from there.
"""

import dataclasses

from train import grid
from train.grid import Cell
from train.study import launch, tuning
from train.study.launch import Study


def train(study: Study, every_cell: tuple[Cell, ...], cells: tuple[Cell, ...], evaluate: bool) -> None:
    """Trains, and if asked evaluates, what `cells` lack; without tuning seeds that is every rate with every seed.

    Args:
      every_cell: the whole grid: rates are chosen once all of it is tuned, since a rate that one cell calls for is
        tried by all.
    """
    if not study.config.grid.tuning_seeds:
        launch.train_cells(study, cells, evaluate)
        return
    tuned = _tune(study, every_cell, cells, evaluate)
    waiting = [name for name in tuned.lacking if not study.workdir.cell(name).failed]
    if waiting:
        study.progress.say(
            f"No rate is chosen before every cell has tried {len(tuned.rates)} rates; {', '.join(waiting)} have not: "
            f"the same command without --cells trains them."
        )
        return
    fresh, passed_over = grid.judged_seeds(study.config), tuning.passed_over(tuned, every_cell)
    for name, winner in passed_over.items():
        study.workdir.cell(name).write_status("passed_over", f"{winner} has the lower tune loss and is judged")
    final = [
        dataclasses.replace(cell, replicas=grid.replicas([tuned.chosen[cell.name]], fresh))
        for cell in cells
        if cell.name not in tuned.lacking and cell.name not in passed_over
    ]
    launch.train_cells(study, tuple(final), evaluate)


def _tune(study: Study, every_cell: tuple[Cell, ...], cells: tuple[Cell, ...], evaluate: bool) -> tuning.Tuning:
    """Trains rates x tuning seeds of `cells`, again wherever a best rate at an edge has extended the rates."""
    seeds, done = grid.choosing_seeds(study.config), ()
    tuned = tuning.read(study.config, study.workdir, every_cell, study.corpus)
    while tuned.rates != done:
        added = sorted({*tuned.rates} - {*done}) if done else []
        if added:
            rates = ", ".join(f"{rate:g}" for rate in added)
            study.progress.say(f"A best rate lies at the edge, so every cell also tries {rates}.")
        lacking = [cell for cell in cells if cell.name in tuned.lacking]
        replicas = grid.replicas(tuned.rates, seeds)
        launch.train_cells(
            study, tuple(dataclasses.replace(cell, replicas=replicas) for cell in lacking), evaluate, end="tuned"
        )
        done, tuned = tuned.rates, tuning.read(study.config, study.workdir, every_cell, study.corpus)
    return tuned
