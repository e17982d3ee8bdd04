"""Evaluates restored cells and writes the tables in results/; docs/workdir.md explains their columns."""

import math

import numpy as np
import pandas as pd

from eval import restore
from eval.judge import intervals
from eval.measure import relations
from mha import budget
from mha.transformer import ModelConfig
from train.config import StudyConfig
from train.data.baselines import bigram_loss, unigram_entropy
from train.data.corpora import Corpus
from train.files import write_table
from train.grid import Cell, Replica
from train.losses import documents
from train.run import packs
from train.run.checkpoint import CorruptCheckpoint
from train.run.metrics import read
from train.study import tuning
from train.workdir import TIMING, CellFolder, Workdir, read_measured, read_table

SPLITS = ("tune", "test")
# Columns that a clock or an allocator fills; every other column of replicas.csv is the same in every run.
MEASURED = ("step_ms", "tokens_per_second", "peak_memory_bytes", "compile_seconds")


class NotReproduced(Exception):
    """A restored cell does not give the loss that was measured at the end of its training."""


def evaluate_pack(folder: CellFolder, index: int, trained: dict, config: StudyConfig, corpus: Corpus) -> pd.DataFrame:
    """The loss of every document for each replica of a pack, from its restored checkpoint: of tune and test, or of tune
    alone where all its runs are of tuning seeds, whose test losses nothing may depend on. Where the corpus has a floor
    the losses by relation are written beside.

    Args:
      trained: what training recorded at its end.

    Raises:
      NotReproduced: on the machine that trained it, a restored tune loss differs from the recorded one in any bit.
      CorruptCheckpoint: the last checkpoint is missing or not what was written.
    """
    restored = restore.restore(folder.path, index, corpus)
    if restored.step != trained["step"]:
        raise CorruptCheckpoint(
            f"{folder.path} was trained to step {trained['step']}, its checkpoint is of {restored.step}."
        )
    frames, by_relation = [], []
    only_tuning = all(stage_of(replica, config) == "tuning" for replica in restored.pack.replicas)
    for split in SPLITS[:1] if only_tuning else SPLITS:
        losses = documents.document_losses(restored.pack, restored.params, corpus, split, config.eval)
        if split == "tune" and restored.pack.environment == packs.environment(config):
            _check_reproduced(folder.path.name, losses.sum(axis=1), trained["tune_losses"])
        frames.extend(_documents(restored.pack, corpus, split, losses))
        if corpus.has_floor and restored.pack.model.causal:  # a floor is that of who sees the past alone
            found = relations.losses(restored.pack, restored.params, corpus, split, config.eval, losses)
            by_relation.append(found)
    if by_relation:
        write_table(folder.relations(index), pd.concat(by_relation, ignore_index=True))
    return pd.concat(frames, ignore_index=True)


def stage_of(replica: Replica, config: StudyConfig) -> str:
    """`tuning` for a run that only chooses, `fresh` for one that is only judged, `both` without tuning seeds."""
    if not config.grid.tuning_seeds:
        return "both"
    return "tuning" if replica.init_seed in config.grid.tuning_seeds else "fresh"


def _check_reproduced(name: str, restored: np.ndarray, trained: list[float]) -> None:
    if not np.array_equal(restored, trained, equal_nan=True):  # a diverged replica's loss may be no number
        raise NotReproduced(
            f"{name}: the restored checkpoint gives summed tune losses {restored.tolist()} nats and training ended "
            f"with {trained}; they must agree in every bit, so a library computes otherwise than before: retrain in "
            f"another --workdir."
        )


def _documents(pack: packs.Pack, corpus: Corpus, split: str, losses: np.ndarray) -> list[pd.DataFrame]:
    first, last = corpus.splits[split]
    return [
        pd.DataFrame(
            {
                "learning_rate": replica.learning_rate,
                "init_seed": replica.init_seed,
                "data_seed": replica.data_seed,
                "split": split,
                "document": corpus.names[first:last],
                "tokens": corpus.num_tokens[first:last],
                "bytes": corpus.num_bytes[first:last],
                "loss_sum": row,
            }
        )
        for replica, row in zip(pack.replicas, losses, strict=True)
    ]


def write_tables(workdir: Workdir, cells: tuple[Cell, ...], config: StudyConfig, corpus: Corpus) -> pd.DataFrame:
    """Writes replicas and cells as CSV and Parquet, and documents as Parquet, from what is evaluated; returns the
    cells, those alone that have a judged run at their chosen rate."""
    documents, replicas, by_relation = [], [], []
    for cell in cells:
        folder = workdir.cell(cell.name)
        for record in folder.packs():
            if record["trained"] is not None and folder.documents(record["index"]).exists():
                found = read_table(folder.documents(record["index"]))
                documents.append(found.assign(cell=cell.name))
                replicas.extend(_replica_rows(cell, folder, record, found, config))
                if folder.relations(record["index"]).exists():
                    of_pack = read_table(folder.relations(record["index"]))
                    by_relation.append(pd.DataFrame({"cell": cell.name, **of_pack}))
    if not documents:
        return pd.DataFrame()
    replicas = pd.DataFrame(replicas)
    table = _cell_rows(replicas, tuning.read(config, workdir, cells, corpus), corpus)
    write_table(workdir.results / "documents.parquet", pd.concat(documents, ignore_index=True))
    every_relation = pd.DataFrame()
    if by_relation:
        every_relation = relations.beside_shortcuts(pd.concat(by_relation, ignore_index=True), config.data)
    for name, frame in (("replicas", replicas), ("cells", table), ("relations", every_relation)):
        for path in (workdir.results / f"{name}.parquet", workdir.results / f"{name}.csv"):
            if frame.empty:
                path.unlink(missing_ok=True)
            else:
                write_table(path, frame)
    return table


def _replica_rows(
    cell: Cell, folder: CellFolder, record: dict, documents: pd.DataFrame, config: StudyConfig
) -> list[dict]:
    pack, trained = packs.from_json(record), record["trained"]
    timing = read_measured(folder.timing, TIMING)
    sums = documents.groupby(["learning_rate", "init_seed", "data_seed", "split"])[
        ["loss_sum", "tokens", "bytes"]
    ].sum()
    rows = []
    for replica, diverged_at in zip(pack.replicas, trained["diverged_at"], strict=True):
        for split in [split for split in SPLITS if split in set(documents.split)]:
            summed = sums.loc[(replica.learning_rate, replica.init_seed, replica.data_seed, split)]
            mean = summed.loss_sum / summed.tokens
            rows.append(
                {
                    **_shape(cell.name, pack.model),
                    "learning_rate": replica.learning_rate,
                    "init_seed": replica.init_seed,
                    "data_seed": replica.data_seed,
                    "stage": stage_of(replica, config),
                    "split": split,
                    "loss": mean,
                    "perplexity": perplexity(mean),
                    "bits_per_byte": summed.loss_sum / summed.bytes / math.log(2),
                    "status": "done" if diverged_at < 0 else "diverged",
                    "diverged_at": diverged_at,
                    "steps": trained["step"],
                    "attention": pack.model.attention,
                    "replica_map": pack.replica_map,
                    "replicas_per_program": len(pack.replicas),
                    "device": pack.environment["device"],
                    "step_ms": timing.get("step_ms"),
                    "tokens_per_second": timing.get("tokens_per_second"),
                    "peak_memory_bytes": trained["memory_bytes"],
                    "compile_seconds": trained["compile_seconds"],
                }
            )
    return rows


def perplexity(loss: float) -> float:
    """exp(loss in nats/token), infinite where that is beyond a float (a replica that all but diverged)."""
    with np.errstate(over="ignore"):
        return float(np.exp(loss))


def _shape(name: str, model: ModelConfig) -> dict:
    params = budget.parameters(model)
    return {
        "cell": name,
        "d_model": model.d_model,
        "num_heads": model.num_heads,
        "d_k": model.d_k,
        "num_layers": model.num_layers,
        "logit_scale": model.logit_scale,
        "d_ff": " ".join(str(width) for width in model.d_ff),
        "params": params.total,
        "params_non_embedding": params.non_embedding,
        "params_attention": params.attention,
        "flops_per_token": budget.flops_per_token(model),
        "exps_per_token": budget.exps_per_token(model),
    }


def _cell_rows(replicas: pd.DataFrame, tuned: tuning.Tuning, corpus: Corpus) -> pd.DataFrame:
    """One row a cell: the chosen rate (tuning), its mean `tune` loss in the runs that chose it, and the mean
    `test` loss of the judged runs at that rate with a 95 % t interval over seeds."""
    bigram, unigram = bigram_loss(corpus, "test"), unigram_entropy(corpus)
    per_token = corpus.bytes_per_token("test")
    counted = replicas.assign(counted=replicas.loss.where(replicas.status == "done", unigram))
    rows = []
    for name, cell in counted.groupby("cell", sort=False):
        rate = tuned.chosen[name]
        test = cell[(cell.split == "test") & (cell.learning_rate == rate)]
        if test.empty:
            continue
        tried = cell[cell.split == "tune"]
        losses = test.counted
        _, low, high, *_ = intervals.over_seeds(losses.to_numpy())
        first = cell.iloc[0]
        shape = list(first.index[: first.index.get_loc("learning_rate")])
        rows.append(
            {
                **first[shape].to_dict(),
                "learning_rate": rate,
                "edge": tuned.edge(name),
                "rates": len(tuned.losses[name]),
                "tune_loss": tuned.losses[name][rate],
                "test_loss": losses.mean(),
                "test_loss_low": low,
                "test_loss_high": high,
                "seeds": len(losses),
                "test_bits_per_byte": losses.mean() / math.log(2) / per_token,
                "bigram_bits_per_byte": bigram / math.log(2) / per_token,
                "below_bigram": 1 - losses.mean() / bigram,
                "diverged_chosen": int((test.status == "diverged").sum()),
                "diverged": int((tried.status == "diverged").sum()),
                "replicas": len(tried),
                **first[["attention", *MEASURED]].to_dict(),
            }
        )
    return pd.DataFrame(rows)


def training_curve(folder: CellFolder) -> pd.DataFrame:
    """metrics.jsonl of a cell as a table: pack, step, replica, loss (nats/token), grad_norm, learning_rate."""
    return pd.DataFrame(read(folder.metrics))
