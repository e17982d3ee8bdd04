"""What is computed beside a verdict and never decides it: other intervals, other sides, other ways to choose."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from eval.judge import intervals, rules, stats
from eval.judge.evidence import Evidence
from eval.judge.losses import SEED, Losses
from eval.judge.paired.comparison import Comparison

SIGN_SEEDS = 6  # from so many seeds on, agreement in sign is evidence: 2 / 2^6 = .03


def details(evidence: Evidence, comparison: Comparison, chosen: dict, mean: pd.DataFrame, tokens, judged) -> dict:
    """Everything beside the verdict `judged`, by name, as results/claims.json has it.

    Args:
      chosen: the two cells of each group.
      mean: the groups' mean difference in nats of each seed (rows) on each file (columns).
      tokens: (m,) of each file.
    """
    found, margin, alpha = evidence.losses, evidence.config.claims.margin, 0.05 / evidence.config.claims.looks
    shared, pooled, cells = mean.index, mean.to_numpy(), [cell for pair in chosen.values() for cell in pair]
    values, new = pooled.sum(axis=1) / tokens.sum(), judged.about == "new documents"
    interval = intervals.new_documents if new else intervals.these_documents
    spread = intervals.variances(pooled, tokens) if new else intervals.Variances(float(np.var(values, ddof=1)))
    agree, p_value = stats.sign_agreement(values)
    sides = [  # averaged over the groups; their correlation over seeds is what pairing took out, and decides nothing
        np.mean([found.sums(pair[side]).loc[shared].sum(axis=1) / tokens.sum() for pair in chosen.values()], axis=0)
        for side in (0, 1)
    ]
    correlates = len(shared) >= 3 and np.std(sides, axis=1).all()
    whole = mean[~shared.isin([seed for cell in cells for seed in found.diverged(cell)])]  # seeds, without divergence
    survivors = on_its_own(evidence, whole) if len(whole) > 1 else {"n": len(whole), "verdict": rules.UNDECIDED}
    return {
        "these_documents": ends(judged.these),
        "new_documents": ends(judged.new),
        "values": dict(zip([f"i{init}_d{order}" for init, order in shared], values.tolist(), strict=True)),
        "negative_parts": list(judged.negative),
        "diverged": {cell: f"{len(found.diverged(cell))} of {found.count(cell)}" for cell in cells},
        "correlation": float(np.corrcoef(sides)[0, 1]) if correlates else None,
        "fixed_heads": None,
        "shared_rate": _shared_rate(evidence, comparison),
        "survivors": survivors if any(len(found.diverged(cell)) for cell in cells) else None,
        "depth": {},
        "may_be_best": {},
        "equivalent": intervals.within(interval, pooled, tokens, margin, alpha),
        "bootstrap": intervals.bootstrap(pooled, tokens, 1 - alpha),
        "seeds_to_decide": stats.seeds_to_decide(spread, len(values), margin, alpha),
        **({"sign": {"agree": agree, "of": len(values), "p_value": p_value}} if len(values) >= SIGN_SEEDS else {}),
    }


def divergence(found: Losses, cells: list[str]) -> str:
    """'0 of 20 runs diverged': the judged runs of `cells`, and those of which every run did."""
    lost = found.runs[found.runs.cell.isin(cells)].set_index("cell").status == "diverged"
    whole = [cell for cell in cells if lost[[cell]].all()]
    return f"{lost.sum()} of {len(lost)} runs diverged" + (f", every one of {' and '.join(whole)}" if whole else "")


def best_set(found: Losses, cells: Iterable[str], confidence: float) -> tuple[dict[str, bool], int]:
    """Whether each of `cells` may be the best (stats.best_set), and the number of seeds that say so: those of
    which no run diverged. A cell whose every run diverged is out; with fewer than two such seeds none is named."""
    runs = found.runs[found.runs.cell.isin(cells) & (found.runs.status == "done")]
    losses = runs.pivot_table(index="cell", columns=SEED, values="counted").dropna(axis=1)
    if losses.shape[1] < 2:
        return {}, losses.shape[1]
    inside = dict(zip(losses.index, stats.best_set(losses.to_numpy(), confidence).tolist(), strict=True))
    return {cell: inside.get(cell, False) for cell in cells}, losses.shape[1]


def on_its_own(evidence: Evidence, sums: pd.DataFrame) -> dict:
    """What the rule says of another difference than the one that decides: seeds (rows) by files (columns)."""
    found, tokens = evidence.losses, evidence.losses.tokens().loc[sums.columns].to_numpy()
    judged = rules.judge(sums.to_numpy(), tokens, evidence.config.claims.margin, evidence.confidence, found.apart)
    return {"n": len(sums), "verdict": judged.verdict, **ends(judged.deciding)}


def _shared_rate(evidence: Evidence, comparison: Comparison) -> dict | None:
    """What one rate for all cells would have said: the rate of the lowest mean tune loss, judged on the choosing seeds
    and tune documents, as published comparisons do. Never a verdict of ours."""
    judged = evidence.losses
    every = judged.choosing.pivot_table(index="learning_rate", columns="cell", values="counted")
    tried = every[judged.cells.cell].dropna().mean(axis=1)
    if tried.empty:
        return None
    rate = tried.idxmin()
    at_rate = judged.choosing[judged.choosing.learning_rate == rate]
    at_rate = at_rate.pivot_table(index=SEED, columns="cell", values="counted")
    differences = [
        np.subtract(*(at_rate[min(side.cell, key=every.loc[rate].get)] for side in sides))
        for sides in comparison.sides(judged.cells).values()
        if all(map(len, sides))
    ]
    interval = intervals.over_seeds(np.mean(differences, axis=0), evidence.confidence)
    verdict = rules.decide(interval.low, interval.high, evidence.config.claims.margin)
    return {"rate": float(rate), "n": len(at_rate), "verdict": verdict, **ends(interval)}


def ends(interval: intervals.Interval) -> dict:
    low, high = (None if math.isnan(value) else float(value) for value in interval[1:3])
    return {"effect": interval.mean, "low": low, "high": high}
