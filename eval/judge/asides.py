"""What is computed beside a verdict and never decides it: other intervals, other sides, other ways to choose."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from eval.judge import evidence, intervals, rules, stats
from eval.judge.comparison import Comparison, best
from eval.judge.evidence import SEED, Evidence
from train.config import StudyConfig

FIXED_HEADS = 4  # a number of heads that no data chose, printed beside the best one
SIGN_SEEDS = 6  # from so many seeds on, agreement in sign is evidence: 2 / 2^6 = .03


def details(
    found: Evidence, comparison: Comparison, config: StudyConfig, chosen: dict, pooled, tokens, judged, shared
) -> dict:
    """Everything beside the verdict `judged`, by name, as results/claims.json has it.

    Args:
      chosen: the two cells of each group.
      pooled: (n, m) the groups' mean difference in nats of each of the seeds `shared` on each file.
      tokens: (m,) of each file.
    """
    values = pooled.sum(axis=1) / tokens.sum()
    alpha = 0.05 / config.claims.looks
    computed = {
        "these_documents": ends(judged.these),
        "new_documents": ends(judged.new),
        "values": dict(zip([f"i{init}_d{order}" for init, order in shared], values.tolist(), strict=True)),
        "negative_parts": list(judged.negative),
        "diverged": {
            cell: f"{len(found.diverged(cell))} of {found.count(cell)}" for pair in chosen.values() for cell in pair
        },
        "correlation": _correlation(found, chosen, shared, tokens),
        "fixed_heads": _fixed_heads(found, comparison, config),
        "shared_rate": _shared_rate(found, comparison, config),
        "survivors": _survivors(found, chosen, config),
        "depth": _depth(found, comparison, config),
        "may_be_best": _may_be_best(found, comparison, 1 - alpha),
    }
    new = judged.about == "new documents"
    interval = intervals.new_documents if new else intervals.these_documents
    spread = intervals.variances(pooled, tokens) if new else intervals.Variances(float(np.var(values, ddof=1)))
    computed["equivalent"] = intervals.within(interval, pooled, tokens, config.claims.margin, alpha)
    computed["bootstrap"] = intervals.bootstrap(pooled, tokens, 1 - alpha)
    computed["seeds_to_decide"] = stats.seeds_to_decide(spread, len(values), config.claims.margin, alpha)
    if len(values) >= SIGN_SEEDS:
        agree, p_value = stats.sign_agreement(values)
        computed["sign"] = {"agree": agree, "of": len(values), "p_value": p_value}
    return computed


def divergence(found: Evidence, cells: Iterable[str]) -> str:
    """'0 of 20 runs diverged': the judged runs of `cells`, and those of which every run did."""
    counts = {cell: (len(found.diverged(cell)), found.count(cell)) for cell in cells}
    lost, runs = (sum(count) for count in zip(*counts.values(), strict=True))
    whole = [cell for cell, (lost_here, runs_here) in counts.items() if lost_here == runs_here]
    return f"{lost} of {runs} runs diverged" + (f", every one of {' and '.join(whole)}" if whole else "")


def best_set(found: Evidence, cells: Iterable[str], confidence: float) -> tuple[dict[str, bool], int]:
    """Whether each of `cells` may be the best (stats.best_set), and the number of seeds that say so: those of
    which no run diverged. A cell whose every run diverged is out; with fewer than two such seeds none is named."""
    runs = found.runs[found.runs.cell.isin(cells) & (found.runs.status == "done")]
    losses = runs.pivot_table(index="cell", columns=SEED, values="counted").dropna(axis=1)
    if losses.shape[1] < 2:
        return {}, losses.shape[1]
    inside = dict(zip(losses.index, stats.best_set(losses.to_numpy(), confidence).tolist(), strict=True))
    return {cell: inside.get(cell, False) for cell in cells}, losses.shape[1]


def _may_be_best(found: Evidence, comparison: Comparison, confidence: float) -> dict:
    """The set of best d_k of each group of C2."""
    sets = {}
    for name, sides in comparison.sides(found.cells).items() if comparison.id == "C2" else ():
        inside, seeds = best_set(found, pd.concat(sides).cell.tolist(), confidence)
        sets[name] = {"cells": [cell for cell, may_be in inside.items() if may_be], "seeds": seeds}
    return sets


def _correlation(found: Evidence, chosen, shared, tokens) -> float | None:
    """Of the two sides' losses over seeds, averaged over the groups: what pairing took out. Nothing depends on it."""
    sides = [
        np.mean([found.sums(pair[side]).loc[shared].sum(axis=1) / tokens.sum() for pair in chosen.values()], axis=0)
        for side in (0, 1)
    ]
    if len(shared) < 3 or not np.std(sides[0]) or not np.std(sides[1]):
        return None
    return float(np.corrcoef(sides)[0, 1])


def _fixed_heads(found: Evidence, comparison: Comparison, config: StudyConfig) -> dict | None:
    """C1 against FIXED_HEADS heads, which no data chose; None where a group has no such cell."""
    if comparison.id != "C1":
        return None
    parts = []
    for left, right in comparison.sides(found.cells).values():
        fixed = right[right.num_heads == FIXED_HEADS]
        if left.empty or fixed.empty:
            return None
        parts.append(evidence.difference(found, best(left), best(fixed)))
    pooled = evidence.averaged(parts)
    return _judged(found, pooled, config) if len(pooled) else None


def _depth(found: Evidence, comparison: Comparison, config: StudyConfig) -> dict:
    """Many layers of one head less few layers of several, the best on `tune` of the shallowest (Liu et al. 2021), for
    each d_model with several numbers of layers."""
    outcome = {}
    for (d_model, series), cells in found.cells.groupby(["d_model", "series"]):
        deep = cells[(cells.num_layers == cells.num_layers.max()) & (cells.num_heads == 1)]
        shallow = cells[(cells.num_layers == cells.num_layers.min()) & (cells.num_heads > 1)]
        if comparison.id == "C1" and cells.num_layers.nunique() > 1 and len(deep) and len(shallow):
            pair = best(deep), best(shallow)
            name = f"d_model {d_model}" + (f", {series}" if series else "")
            judged = _judged(found, evidence.difference(found, *pair), config)
            outcome[name] = {"cells": list(pair), **judged}
    return outcome


def _survivors(found: Evidence, chosen: dict, config: StudyConfig) -> dict | None:
    """The verdict without the seeds of which a run diverged; None if none did or fewer than two are left."""
    lost = [found.diverged(cell) for pair in chosen.values() for cell in pair]
    if not any(len(seeds) for seeds in lost):
        return None
    pooled = evidence.averaged([evidence.difference(found, *pair) for pair in chosen.values()])
    for seeds in lost:
        pooled = pooled[~pooled.index.isin(seeds)]
    return _judged(found, pooled, config) if len(pooled) > 1 else {"n": len(pooled), "verdict": rules.UNDECIDED}


def _judged(found: Evidence, pooled: pd.DataFrame, config: StudyConfig) -> dict:
    confidence, tokens = 1 - 0.05 / config.claims.looks, found.tokens().loc[pooled.columns].to_numpy()
    judged = rules.judge(pooled.to_numpy(), tokens, config.claims.margin, confidence, found.apart)
    return {"n": len(pooled), "verdict": judged.verdict, **ends(judged.deciding)}


def _shared_rate(found: Evidence, comparison: Comparison, config: StudyConfig) -> dict | None:
    """What one rate for all cells would have said: the rate of the lowest mean tune loss, judged on the choosing seeds
    and tune documents, as published comparisons do. Never a verdict of ours."""
    tried = found.choosing.pivot_table(index="learning_rate", columns="cell", values="counted")
    tried = tried[found.cells.cell].dropna()
    if tried.empty:
        return None
    rate = tried.mean(axis=1).idxmin()
    at_rate = found.choosing[found.choosing.learning_rate == rate].pivot_table(
        index=SEED, columns="cell", values="counted"
    )
    values = []
    for left, right in comparison.sides(found.cells).values():
        if len(left) and len(right):
            best = [min(side.cell, key=lambda name: tried.loc[rate, name]) for side in (left, right)]
            values.append(at_rate[best[0]] - at_rate[best[1]])
    if not values:
        return None
    interval = intervals.over_seeds(np.mean(values, axis=0), 1 - 0.05 / config.claims.looks)
    verdict = rules.decide(interval.low, interval.high, config.claims.margin)
    return {"rate": float(rate), "n": len(at_rate), "verdict": verdict, **ends(interval)}


def ends(interval: intervals.Interval) -> dict:
    return {"effect": interval.mean, "low": number(interval.low), "high": number(interval.high)}


def number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
