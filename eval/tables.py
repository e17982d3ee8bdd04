"""The tables in results/, from what is measured; docs/workdir.md explains their columns."""

import math

import numpy as np
import pandas as pd

from eval import doses, measurements
from eval.judge import intervals
from mha import budget
from train import grid
from train.config import StudyConfig
from train.data.corpora import Corpus, bigram_loss, unigram_entropy
from train.grid import Cell
from train.run import metrics, packs
from train.study import recovery, tuning
from train.workdir import TIMING, CellFolder, Workdir, read_measured

OF_DRAWN_WEIGHTS = ("tuning", "fresh", "both")  # stages of runs that C1 to C3 compare
FLOOR, SHORTCUT = "floor", "best shortcut"  # rows of `excess` beside those of cells
# Columns that a clock or an allocator fills; every other column of replicas.csv is the same in every run.
MEASURED = ("step_ms", "tokens_per_second", "peak_memory_bytes", "compile_seconds")


def write_tables(workdir: Workdir, cells: tuple[Cell, ...], config: StudyConfig, corpus: Corpus | None) -> pd.DataFrame:
    """Writes results/ from all that is measured: a table a measurement, and replicas and cells, or of a study of doses
    its runs, as CSV and Parquet; returns the last, of cells those alone that have a judged run at their chosen rate."""
    tables = {name: measurements.merge(workdir, cells, name) for name in measurements.known()}
    if corpus is None:
        return doses.write_table(workdir, cells, config)
    documents = tables["losses"]
    of_cells = dict(list(documents.groupby("cell"))) if len(documents) else {}
    replicas = pd.DataFrame(
        [
            row
            for cell in cells
            if cell.name in of_cells
            for record in workdir.cell(cell.name).packs()
            if record["trained"] is not None
            for row in _replica_rows(cell, workdir.cell(cell.name), record, of_cells[cell.name], config)
        ]
    )
    if replicas.empty:
        return replicas
    table = _cell_rows(replicas, tuning.read(config, workdir, cells, tuning.by_loss(config, corpus)), corpus)
    measurements.write(workdir, "replicas", replicas)
    measurements.write(workdir, "cells", table)
    return table


def excess(workdir: Workdir, table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the judged seeds of each cell in `table` at its chosen rate, on `test`: cell (rows) by relation
    (columns), `excess` in nats a bit. Above the cells stand FLOOR, what none can do without, and SHORTCUT, what the
    best rule leaves above it that needs no relation (NaN where a column is of no single relation). Empty where the text
    has no known floor."""
    path = workdir.results / "relations.parquet"
    if not path.exists() or table.empty:
        return pd.DataFrame()
    rows = pd.read_parquet(path)
    rows = rows[rows.split == "test"].merge(table[["cell", "learning_rate"]])
    names = list(dict.fromkeys(rows.relation))
    means = rows.pivot_table(index="cell", columns="relation", values="excess").loc[list(table.cell), names]
    known = rows.groupby("relation")[["floor", "shortcut"]].first().set_axis([FLOOR, SHORTCUT], axis=1).T[names]
    return pd.concat([known, means])


def _replica_rows(
    cell: Cell, folder: CellFolder, record: dict, documents: pd.DataFrame, config: StudyConfig
) -> list[dict]:
    """A row a run of a pack and split that it is measured on; its stage is `tuning` for one that only chooses, `fresh`
    for one that is only judged, `both` without tuning seeds, the start of one that goes on from another."""
    pack, trained = packs.from_json(record), record["trained"]
    timing, model = read_measured(folder.timing, TIMING), pack.model
    params, shape = budget.parameters(model), ("d_model", "num_heads", "d_k", "num_layers", "logit_scale")
    rows = []
    runs = zip(pack.replicas, trained["diverged_at"], strict=True)
    for replica, diverged_at in [run for run in runs if run[0].start != grid.PERTURBED]:
        sums = documents[documents.replica == replica.name].groupby("split")[["loss_sum", "tokens", "bytes"]].sum()
        for split in [split for split in measurements.SPLITS if split in sums.index]:
            summed = sums.loc[split]
            mean = summed.loss_sum / summed.tokens
            rows.append(
                {
                    "cell": cell.name,
                    **{name: getattr(model, name) for name in shape},
                    "d_ff": " ".join(map(str, model.d_ff)),
                    "params": params.total,
                    "params_non_embedding": params.non_embedding,
                    "params_attention": params.attention,
                    "flops_per_token": budget.flops_per_token(model),
                    "exps_per_token": budget.exps_per_token(model),
                    **{name: getattr(replica, name) for name in measurements.RUN},
                    "stage": _stage(replica, config),
                    "split": split,
                    "loss": mean,
                    "perplexity": perplexity(mean),
                    "bits_per_byte": summed.loss_sum / summed.bytes / math.log(2),
                    "status": "done" if diverged_at < 0 else "diverged",
                    "diverged_at": diverged_at,
                    "steps": trained["step"],
                    "attention": model.attention,
                    "replica_map": pack.replica_map,
                    "replicas_per_program": len(pack.replicas),
                    "device": pack.environment["device"],
                    **{name: timing.get(name) for name in ("step_ms", "tokens_per_second")},
                    "peak_memory_bytes": trained["memory_bytes"],
                    "compile_seconds": trained["compile_seconds"],
                }
            )
    return rows


def _stage(replica: grid.Replica, config: StudyConfig) -> str:
    if replica.start != grid.DRAWN:
        return replica.start
    return ("tuning" if grid.chooses(replica, config) else "fresh") if config.grid.tuning_seeds else "both"


def perplexity(loss: float) -> float:
    """exp(loss in nats/token), infinite where that is beyond a float (a replica that all but diverged)."""
    with np.errstate(over="ignore"):
        return float(np.exp(loss))


def _cell_rows(replicas: pd.DataFrame, tuned: tuning.Tuning, corpus: Corpus) -> pd.DataFrame:
    """One row a cell: the chosen rate (tuning), its mean `tune` loss in the runs that chose it, and the mean
    `test` loss of the judged runs at that rate with a 95 % t interval over seeds."""
    bigram, per_token = bigram_loss(corpus, "test"), corpus.bytes_per_token("test")
    drawn = replicas[replicas.stage.isin(OF_DRAWN_WEIGHTS)]
    counted = drawn.assign(counted=drawn.loss.where(drawn.status == "done", unigram_entropy(corpus)))
    shape, rows = replicas.columns[: replicas.columns.get_loc("learning_rate")], []
    for name, cell in counted.groupby("cell", sort=False):
        rate, tried, first = tuned.chosen[name], cell[cell.split == "tune"], cell.iloc[0]
        test = cell[(cell.split == "test") & (cell.learning_rate == rate)]
        if test.empty:
            continue
        mean, low, high, *_ = intervals.over_seeds(test.counted.to_numpy())
        rows.append(
            {
                **first[shape].to_dict(),
                "learning_rate": rate,
                "edge": tuned.edge(name),
                "rates": len(tuned.scores[name]),
                "tune_loss": tuned.scores[name][rate],
                "test_loss": mean,
                "test_loss_low": low,
                "test_loss_high": high,
                "seeds": len(test),
                "test_bits_per_byte": mean / math.log(2) / per_token,
                "bigram_bits_per_byte": bigram / math.log(2) / per_token,
                "below_bigram": 1 - mean / bigram,
                "diverged_chosen": int((test.status == "diverged").sum()),
                "diverged": int((tried.status == "diverged").sum()),
                "replicas": len(tried),
                **first[["attention", *MEASURED]].to_dict(),
            }
        )
    return pd.DataFrame(rows)


def training_curve(folder: CellFolder) -> pd.DataFrame:
    """metrics.jsonl of a cell as a table: pack, step, replica, loss (nats/token), grad_norm, learning_rate; without the
    runs that go on from others."""
    lines = pd.DataFrame(metrics.read(folder.metrics))
    return lines[~lines.replica.str.contains(recovery.IN_NAMES)] if len(lines) else lines
