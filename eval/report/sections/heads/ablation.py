"""What closing each head alone does: by cell the spread of the effects, and how far the ablations agree."""

import numpy as np
import pandas as pd
import scipy.stats

from eval.judge.evidence import Evidence

TABLES = ("ablation",)
SMALL = 0.01  # of the loss


def context(evidence: Evidence, verdicts) -> dict | None:
    path = evidence.workdir.results / "ablation.parquet"
    if not path.exists() or evidence.cells.empty:
        return None
    rows = pd.read_parquet(path)
    rows = rows[rows.split == "test"].merge(evidence.cells[["cell", "learning_rate"]])
    return {"effects": effects(rows, evidence)} if len(rows) else None


def effects(rows: pd.DataFrame, evidence: Evidence) -> list[dict]:
    """A row a cell and ablation: heads, and of their effects on test in nats/token, means over seeds: the largest, the
    smallest, the median and the sum over all heads; the share of heads whose effect is below SMALL of the loss; and the
    rank correlation with the effects of zero ablation."""
    sums = rows.groupby(["cell", "replica", "ablation", "layer", "head"])[["rise", "tokens"]].sum()
    effect = (sums.rise / sums.tokens).rename("effect").reset_index()
    losses, found = evidence.losses.cells.set_index("cell").test_loss, []
    for (cell, kind), mine in effect.groupby(["cell", "ablation"], sort=False):
        runs = [own.set_index(["layer", "head"]).effect for _, own in mine.groupby("replica")]
        zero = effect[(effect.cell == cell) & (effect.ablation == "zero")]
        zeros = [own.set_index(["layer", "head"]).effect for _, own in zero.groupby("replica")]
        agree = [
            scipy.stats.spearmanr(one, other.loc[one.index]).statistic
            for one, other in zip(runs, zeros, strict=False)
            if len(one) > 2
        ]
        stats = {name: np.mean([of(run) for run in runs]) for name, of in _STATISTICS.items()}
        small = np.mean([np.mean(run < SMALL * losses[cell]) for run in runs])
        about = {"cell": cell, "ablation": kind, "heads": len(runs[0]), "seeds": len(runs)}
        found.append({**about, **stats, "small": small, "agrees": np.mean(agree) if agree else np.nan})
    order = {cell: place for place, cell in enumerate(evidence.losses.cells.cell)}
    return sorted(found, key=lambda row: order[row["cell"]])


_STATISTICS = {"largest": np.max, "median": np.median, "smallest": np.min, "total": np.sum}
