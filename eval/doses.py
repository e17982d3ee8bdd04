"""The runs of a study of doses (claim C4): results/dose.csv, and the looks that were taken at their losses."""

import functools
import math

import numpy as np
import pandas as pd

from train import files
from train.config import StudyConfig
from train.data.relations import parse, shortcuts
from train.data.relations.language import Language
from train.grid import Cell
from train.run import starts
from train.study import dose_study
from train.workdir import Workdir

FRESH, STAGES = dose_study.FRESH, dose_study.STAGES


def looks(workdir: Workdir, name: str, stage: str) -> list[dict]:
    """Every look at the runs of a stage of the cell `name`, such as d064_h001_r6: `step`, `replica`, `loss` and, by
    name, `relations`, in nats a bit above the floor."""
    return dose_study.looks(workdir.cell(name), stage)


def write_table(workdir: Workdir, cells: tuple[Cell, ...], config: StudyConfig) -> pd.DataFrame:
    """Writes results/dose.csv and .parquet, a row a run, and returns them; empty before any stage is done.

    `loss` is the relational loss above its floor where the run stopped, `worst` the largest of all looks, in nats a
    bit; `shortcut` what the best rules leave that are not the relations themselves, each bit guessed on its own, and
    `query_alone`, of runs without attention, what the best rule leaves which sees the query alone.
    """
    rows = []
    for cell in cells:
        for dose in config.dose.relations:
            folder = workdir.cell(dose_study.name_of(cell, dose))
            for stage in STAGES:
                done = dose_study.outcomes(folder, stage)
                worst = _worst(looks(workdir, dose_study.name_of(cell, dose), stage)) if done else {}
                for run in done or ():
                    spoken = parse.spoken(config.data, dose, run.replica.data_seed)
                    rows.append(
                        {
                            "cell": cell.name,
                            "d_model": cell.model.d_model,
                            "num_heads": cell.model.num_heads,
                            "d_k": cell.model.d_k,
                            "num_layers": cell.model.num_layers,
                            "relations": dose,
                            "names": " ".join(spoken.relations),
                            "stage": stage,
                            "learning_rate": run.replica.learning_rate,
                            "seed": run.replica.init_seed,
                            "steps": run.steps,
                            "outcome": run.why,
                            "loss": run.loss,
                            "worst": worst.get(run.replica.name, math.nan),
                            "shortcut": _shortcut(spoken),
                            "query_alone": _query_alone(spoken) if stage == starts.NO_ATTENTION else math.nan,
                        }
                    )
    table = pd.DataFrame(rows)
    if len(table):
        for suffix in ("csv", "parquet"):
            files.write_table(workdir.results / f"dose.{suffix}", table)
    return table


def _worst(lines: list[dict]) -> dict[str, float]:
    """The largest loss of each run; one that is not finite counts as chance."""
    found: dict[str, float] = {}
    for line in lines:
        loss = math.log(2) if line["loss"] is None else line["loss"]
        found[line["replica"]] = max(loss, found.get(line["replica"], loss))
    return found


@functools.cache
def _rules(spoken: Language) -> tuple[shortcuts.Relation, ...]:
    """The shortcut table of a language, which many runs have in common."""
    return tuple(shortcuts.table(spoken, 0))


def _shortcut(spoken: Language) -> float:
    """Nats a bit above the floor that the best shortcuts leave, each relation's on its own."""
    return sum(relation.share * relation.best_excess for relation in _rules(spoken))


def _query_alone(spoken: Language) -> float:
    """Nats a bit above the floor that the best rule leaves which sees the query alone."""
    found = _rules(spoken)
    sizes = np.array([relation.share for relation in found])
    return float(
        sizes @ [rule.loss - each.floor for each in found for rule in each.shortcuts if rule.rule == "query alone"]
    )
