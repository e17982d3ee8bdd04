"""The runs of a study of doses (claim C4): results/dose.csv, and the looks that were taken at their losses."""

import math

import pandas as pd

from eval import measurements
from eval.measure.relations import RELATIONAL
from train import grid
from train.config import StudyConfig
from train.data.relations import doses
from train.run import metrics, packs, starts
from train.workdir import CellFolder, Workdir

TUNE, FRESH = "tune", "fresh"
STAGES = (TUNE, FRESH, *starts.KNOWN)


def runs(folder: CellFolder, config: StudyConfig) -> list[tuple[str, grid.Replica, dict]]:
    """Stage, replica and outcome of every run that has ended; a fresh seed's stage is `fresh`, or the start that is
    not as drawn."""
    drawn = {True: TUNE, False: FRESH}
    return [
        (drawn[grid.chooses(replica, config)] if replica.start == grid.DRAWN else replica.start, replica, outcome)
        for record in folder.packs()
        if record["trained"] is not None
        for replica, outcome in zip(packs.from_json(record).replicas, record["trained"]["outcomes"], strict=True)
    ]


def looks(folder: CellFolder, stage: str, config: StudyConfig) -> list[dict]:
    """Every look at the runs of a stage of a cell: `step`, `replica`, `loss` and, by name, `relations`, in nats a bit
    above the floor."""
    mine = {replica.name for of, replica, _ in runs(folder, config) if of == stage}
    return [line for line in metrics.read(folder.looks) if line["replica"] in mine]


def write_table(workdir: Workdir, cells: tuple[grid.Cell, ...], config: StudyConfig) -> pd.DataFrame:
    """Writes results/dose.csv and .parquet, a row a run, and returns them; empty before any run has ended.

    `loss` is the relational loss above its floor where the run stopped, `worst` the largest of all looks, in nats a
    bit; `shortcut` what the best rules leave that are not the relations themselves, each bit guessed on its own, and
    `query_alone`, of runs without attention, what the best rule leaves which sees the query alone: both as
    eval/measure/relations.py found them, missing before that.
    """
    rows = []
    for cell in cells:
        folder, model = workdir.cell(cell.name), cell.model
        looked = pd.DataFrame(metrics.read(folder.looks), columns=["replica", "loss"])
        finite = looked.loss.astype(float).fillna(math.log(2))  # one that is not counts as chance
        worst = finite.groupby(looked.replica).max()
        measured = measurements.rows_of(folder, "relations").itertuples()
        shortcuts = {row.replica: (row.shortcut, row.query_alone) for row in measured if row.relation == RELATIONAL}
        for stage, replica, outcome in sorted(runs(folder, config), key=lambda run: STAGES.index(run[0])):
            shortcut, query_alone = shortcuts.get(replica.name, (math.nan, math.nan))
            rows.append(
                {
                    "cell": cell.shape,
                    **{name: getattr(model, name) for name in ("d_model", "num_heads", "d_k", "num_layers")},
                    "relations": cell.dose,
                    "names": " ".join(doses.spoken(config.data, cell.dose, replica.data_seed).relations),
                    "stage": stage,
                    "learning_rate": replica.learning_rate,
                    "seed": replica.init_seed,
                    **{"steps": outcome["steps"], "outcome": outcome["why"], "loss": outcome["loss"]},
                    "worst": worst.get(replica.name, math.nan),
                    "shortcut": shortcut,
                    "query_alone": query_alone if stage == starts.NO_ATTENTION else math.nan,
                }
            )
    table = pd.DataFrame(rows)
    measurements.write(workdir, "dose", table)
    return table
