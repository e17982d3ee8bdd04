"""Runs that train on after heads were removed: which a study needs, and by how much their losses rise."""

import numpy as np
import pandas as pd

from eval.heads.importance import orders
from eval.judge.evidence import Evidence
from eval.judge.single import by_model, redundancy
from eval.measure import pruning
from train import grid
from train.grid import Replica
from train.run import packs
from train.study import recovery

RANDOM_ORDERS = (orders.RANDOM, orders.WITHIN_LAYERS)
COLUMNS = ["cell", "replica", "init_seed", "what", "order", "removed", "heads", "rise", "low", "high", "answer"]


def curves(evidence: Evidence) -> pd.DataFrame:
    """Results of the measurement `pruning`; empty where there are none."""
    path = evidence.workdir.results / "pruning.parquet"
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["cell", *pruning.COLUMNS])


def count(evidence: Evidence, cell: str, share: float) -> int:
    """How many heads of a cell a share is."""
    shape = evidence.losses.cells.set_index("cell").loc[cell]
    return orders.at_share(int(shape.num_layers * shape.num_heads), share)


def cost_of_all(evidence: Evidence, cell: str) -> float:
    """The mean over judged runs of the rise in test loss with all heads off, relative to the whole model's loss."""
    table = curves(evidence)
    mine = table[(table.cell == cell) & (table.split == "test") & (table.removed == table.heads)]
    mine = mine[~mine.order.str.startswith(pruning.LAYER)]
    return float((mine.rise / (mine.loss - mine.rise)).mean())


def tokens(evidence: Evidence) -> np.ndarray:
    return evidence.losses.tokens().to_numpy()


def _closed(evidence: Evidence, cell: str) -> dict[tuple[str, str], list]:
    """By run and order, the heads in the order of their removal, as many as go; of L0 gates those of the strength that
    closes the fewest heads that are enough for redundancy.SHARE."""
    table, found = curves(evidence), {}
    mine = table[(table.cell == cell) & (table.split == "tune") & ~table.order.str.startswith(pruning.LAYER)]
    enough = count(evidence, cell, redundancy.SHARE)
    for (name, order), rows in mine.groupby(["replica", "order"]):
        able = rows[rows.removed >= enough] if order == orders.L0 else rows[rows.removed == rows.heads]
        if len(able):
            found[name, order] = pruning.closed_heads(able.sort_values("removed").closed.iloc[0])
    return found


def wanted(evidence: Evidence) -> list[tuple[str, Replica, list]]:
    """The runs that are not trained yet: cell, run, and the heads that it lacks. First those of tuning seeds, by which
    the order is chosen in the primary cell; once they are measured, those of fresh seeds in every cell."""
    if not len(curves(evidence)) or evidence.losses.cells.empty:
        return []
    tuning = _of_tuning(evidence)
    lacking = _untrained(evidence, tuning)
    if lacking or not tuning:
        return lacking
    chosen = chosen_order(evidence)
    return _untrained(evidence, _of_fresh(evidence, chosen)) if chosen else []


def _of_tuning(evidence: Evidence) -> list[tuple[str, Replica, list]]:
    cell, asked = by_model.primary(evidence), []
    enough, heads = count(evidence, cell, redundancy.SHARE), _closed(evidence, cell)
    for run in _runs(evidence, cell, grid.choosing_seeds(evidence.config)):
        for order in evidence.config.pruning.tuning_orders:
            if (run.name, order) in heads and order not in RANDOM_ORDERS:
                start = recovery.start(recovery.PRUNED, order, enough)
                asked.append((cell, _starting(run, start), heads[run.name, order][:enough]))
    return asked


def _of_fresh(evidence: Evidence, chosen: str) -> list[tuple[str, Replica, list]]:
    config, asked = evidence.config, []
    for cell in by_model.cells(evidence):
        heads = _closed(evidence, cell)
        for run in _runs(evidence, cell, grid.judged_seeds(config)):
            asked.append((cell, _starting(run, recovery.UNPRUNED), []))
            for order in (chosen, orders.WITHIN_LAYERS):
                for share in config.pruning.shares if (run.name, order) in heads else ():
                    gone = heads[run.name, order][: count(evidence, cell, share)]
                    start = recovery.start(recovery.PRUNED, order, len(gone))
                    asked.append((cell, _starting(run, start), gone))
            if (run.name, chosen) in heads and cell == by_model.primary(evidence):
                gone = heads[run.name, chosen][: count(evidence, cell, redundancy.SHARE)]
                start = recovery.start(recovery.FROM_SCRATCH, chosen, len(gone))
                asked.append((cell, _starting(run, start), gone))
    return asked


def _runs(evidence: Evidence, cell: str, seeds) -> list[Replica]:
    """The runs of these seeds at the cell's rate that are measured, so that they did not diverge."""
    rate = float(evidence.losses.cells.set_index("cell").learning_rate[cell])
    table = curves(evidence)
    measured = set(table[table.cell == cell].replica)
    return [run for run in grid.replicas((rate,), seeds) if run.name in measured]


def _starting(run: Replica, start: str) -> Replica:
    return Replica(run.learning_rate, run.init_seed, run.data_seed, start)


def _untrained(evidence: Evidence, asked: list[tuple[str, Replica, list]]) -> list[tuple[str, Replica, list]]:
    trained = {
        (cell, run)
        for cell in {cell for cell, *_ in asked}
        for pack, ended in packs.read(evidence.workdir.cell(cell))
        for run in (pack.replicas if ended else ())
    }
    return [one for one in asked if one[:2] not in trained]


def chosen_order(evidence: Evidence) -> str | None:
    """The order whose runs of tuning seeds have the lowest mean tune loss after training on, random ones aside."""
    cell = by_model.primary(evidence)
    enough, every = count(evidence, cell, redundancy.SHARE), _replicas(evidence)
    tuned = every[
        (every.cell == cell) & (every.split == "tune") & every.init_seed.isin(evidence.config.grid.tuning_seeds)
    ]
    starts = {recovery.start(recovery.PRUNED, order, enough): order for order in evidence.config.pruning.tuning_orders}
    tuned = tuned[tuned.stage.isin(list(starts))].assign(order=lambda rows: rows.stage.map(starts))
    most = tuned.groupby("order").loss.agg(["mean", "size"])
    whole = most[most["size"] == most["size"].max()] if len(most) else most
    return None if whole.empty else str(whole["mean"].idxmin())


def _replicas(evidence: Evidence) -> pd.DataFrame:
    return pd.read_parquet(evidence.workdir.results / "replicas.parquet")


def rises(evidence: Evidence, alpha: float) -> pd.DataFrame:
    """A row a judged run that trained on without heads: relative rise of its test loss above that of the unpruned copy
    of the same seed, with its interval over source files and the answer; `replica` is the run that it went on from, or
    of FROM_SCRATCH the one whose heads it lacks. Diverged runs have no row."""
    documents = pd.read_parquet(evidence.workdir.results / "documents.parquet")
    documents = documents[documents.split == "test"].assign(file=documents.document.map(evidence.corpus.file_of))
    lost = _replicas(evidence).query("split == 'test' and status == 'diverged'")
    gone, rows = set(zip(lost.cell, lost.stage, lost.init_seed, strict=True)), []
    for cell in by_model.cells(evidence):
        mine = documents[documents.cell == cell]
        sums = mine.pivot_table(index="replica", columns="file", values="loss_sum", aggfunc="sum")
        shape = evidence.losses.cells.set_index("cell").loc[cell]
        for pack, _ in packs.read(evidence.workdir.cell(cell)):
            for run in pack.replicas:
                copy = _starting(run, recovery.UNPRUNED).name
                if (
                    not recovery.belongs(run)
                    or run.start == recovery.UNPRUNED
                    or (cell, run.start, run.init_seed) in gone
                ):
                    continue
                if run.name not in sums.index or copy not in sums.index:
                    continue
                what = recovery.PRUNED if recovery.goes_on(run) else recovery.FROM_SCRATCH
                order, _, removed = run.start.removeprefix(f"{what}_").rpartition("_")
                found = redundancy.judge(sums.loc[run.name].to_numpy(), sums.loc[copy].to_numpy(), alpha=alpha)
                about = (cell, recovery.parent(run).name, run.init_seed, what, order, int(removed))
                heads = int(shape.num_layers * shape.num_heads)
                rows.append((*about, heads, found.rise, found.low, found.high, found.answer))
    return pd.DataFrame(rows, columns=COLUMNS)
