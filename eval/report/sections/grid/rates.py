"""Tune loss at every learning rate tried, and what a wrong rate costs."""

import numpy as np

from eval.judge.evidence import Evidence
from eval.report import figures as plots
from eval.report.style import Drawn


def context(evidence: Evidence, verdicts) -> dict | None:
    if evidence.cells.empty:
        return None
    return {"rate_notes": rate_notes(evidence), "rate_costs": rate_costs(evidence)}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    keys, tune = ["cell", *plots.SHAPE, "learning_rate"], evidence.losses.choosing
    tune = tune.assign(diverged=tune.status == "diverged")
    means = tune.groupby(keys, as_index=False).agg(loss=("counted", "mean"), diverged=("diverged", "sum"))
    chosen = means.learning_rate == means.cell.map(evidence.cells.set_index("cell").learning_rate)
    return {
        f"rates_d{d_model:03d}": Drawn(
            plots.sensitivity(rates),
            f"Mean tune loss against the learning rate, one line for each cell of d_model {d_model}.",
        )
        for d_model, rates in means.assign(chosen=chosen).groupby("d_model")
    }


def rate_costs(evidence: Evidence) -> list[dict]:
    """How much a factor 4 in the learning rate costs each cell (the sensitivity of Wortsman et al. 2023): its mean tune
    loss at a quarter and at four times the chosen rate, less that at the chosen one; None where it was not tried, and
    empty if no cell tried either."""
    means = evidence.losses.choosing.groupby(["cell", "learning_rate"]).counted.mean()
    rows = []
    for cell, chosen in zip(evidence.losses.cells.cell, evidence.losses.cells.learning_rate, strict=True):
        mine, costs = means[cell], {}
        for name, factor in (("lower", 0.25), ("higher", 4.0)):
            near = mine[np.isclose(mine.index, factor * chosen, rtol=0.02, atol=0)]
            costs[name] = float(near.iloc[0] - mine[chosen]) if len(near) else None
        rows.append({"cell": cell, "rate": chosen, **costs})
    return rows if any(row[name] is not None for row in rows for name in ("lower", "higher")) else []


def rate_notes(evidence: Evidence) -> list[str]:
    """Whether the rates that were tried enclose each cell's best one."""
    cells = evidence.losses.cells
    at = cells[cells.diverged_chosen < cells.seeds].groupby("edge").cell.agg(", ".join)
    if at.empty:
        return []
    if "only" in at:
        return ["One rate was tried, so no cell is tuned: a difference may come from the rate as well as from h."]
    return [
        f"Best at the {edge} rate tried, so a better one may lie beyond: {at[edge]}."
        for edge in ("lowest", "highest")
        if edge in at
    ] or ["Every cell's best rate lies inside the range that was tried."]
