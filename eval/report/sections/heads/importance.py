"""How well cheaper measures rank the heads: by cell, their rank correlation with the effect of closing each."""

import numpy as np
import pandas as pd
import scipy.stats

from eval.judge.evidence import Evidence
from eval.measure.importance import MEASURES

TABLES = ("importance",)


def context(evidence: Evidence, verdicts) -> dict | None:
    tables = [evidence.workdir.results / f"{name}.parquet" for name in ("importance", "ablation")]
    if not all(path.exists() for path in tables) or evidence.cells.empty:
        return None
    scores, effects = (pd.read_parquet(path).query("split == 'test'") for path in tables)
    effects = effects[effects.ablation == "zero"].groupby(["cell", "replica", "layer", "head"]).rise.sum().reset_index()
    rows = scores.merge(effects).merge(evidence.cells[["cell", "learning_rate"]])
    agreements = agreement(rows)
    return {"agreements": agreements, "measures": MEASURES} if agreements else None


def agreement(rows: pd.DataFrame) -> list[dict]:
    """By cell, of each of MEASURES the mean over runs of Spearman's rank correlation with `rise`; cells of more than
    two heads."""
    found = []
    for cell, mine in rows.groupby("cell", sort=False):
        runs = [own for _, own in mine.groupby("replica") if len(own) > 2]
        if runs:
            means = {
                name: np.mean([scipy.stats.spearmanr(own[name], own.rise).statistic for own in runs])
                for name in MEASURES
            }
            found.append({"cell": cell, "heads": len(runs[0]), "seeds": len(runs), **means})
    return found
