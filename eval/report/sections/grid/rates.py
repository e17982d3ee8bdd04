"""Tune loss at every learning rate tried, and what a wrong rate costs."""

import math

import pandas as pd

from eval.judge.evidence import Evidence
from eval.report import figures as plots
from eval.report.style import Drawn


def context(evidence: Evidence, verdicts) -> dict | None:
    if evidence.cells.empty:
        return None
    notes, costs = rate_notes(evidence), rate_costs(evidence)
    return {"rate_notes": notes, "rate_costs": costs, "unigram": evidence.losses.unigram}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    return {
        f"rates_d{d_model:03d}": Drawn(
            plots.sensitivity(rates),
            f"Mean tune loss against the learning rate, one line for each cell of d_model {d_model}.",
        )
        for d_model, rates in _means(evidence).groupby("d_model")
    }


def _means(evidence: Evidence) -> pd.DataFrame:
    """Mean tune loss by cell and learning rate, a diverged run counted as the unigram entropy."""
    tune = evidence.losses.choosing
    keys = ["cell", *plots.SHAPE, "learning_rate"]
    tune = tune.assign(diverged=tune.status == "diverged")
    means = tune.groupby(keys, as_index=False).agg(loss=("counted", "mean"), diverged=("diverged", "sum"))
    chosen = evidence.cells[["cell", "learning_rate"]].rename(columns={"learning_rate": "best"})
    means = means.merge(chosen, on="cell")
    return means.assign(chosen=means.learning_rate == means.best)


def rate_costs(evidence: Evidence) -> list[dict]:
    """How much a factor 4 in the learning rate costs each cell (the sensitivity of Wortsman et al. 2023): its mean tune
    loss at a quarter and at four times the chosen rate, less that at the chosen one; None where it was not tried, and
    empty if no cell tried either."""
    means = evidence.losses.choosing.groupby(["cell", "learning_rate"]).counted.mean()
    found = []
    for row in evidence.losses.cells.itertuples():
        mine = means[row.cell]
        costs = {}
        for name, factor in (("lower", 0.25), ("higher", 4.0)):
            near = mine[[math.isclose(rate, factor * row.learning_rate, rel_tol=0.02) for rate in mine.index]]
            costs[name] = float(near.iloc[0] - mine[row.learning_rate]) if len(near) else None
        found.append({"cell": row.cell, "rate": row.learning_rate, **costs})
    return found if any(row[name] is not None for row in found for name in ("lower", "higher")) else []


def rate_notes(evidence: Evidence) -> list[str]:
    """Whether the rates that were tried enclose each cell's best one."""
    cells = evidence.losses.cells
    compared = cells[cells.diverged_chosen < cells.seeds]
    if compared.empty:
        return []
    if (compared.edge == "only").any():
        return ["One rate was tried, so no cell is tuned: a difference may come from the rate as well as from h."]
    at = {edge: compared.cell[compared.edge == edge] for edge in ("lowest", "highest")}
    return [
        f"Best at the {edge} rate tried, so a better one may lie beyond: {', '.join(names)}."
        for edge, names in at.items()
        if len(names)
    ] or ["Every cell's best rate lies inside the range that was tried."]
