"""The runs of a study of doses: steps, losses and ratios, a row a cell and dose, and the runs from other starts."""

import numpy as np

from eval import doses
from eval.judge import steps
from eval.judge.evidence import Evidence
from eval.report import dose_figures
from eval.report.style import Drawn
from train.run import starts

TABLES = ("dose",)
STARTS = {
    starts.HAND_BUILT: "weights by hand",
    starts.NO_ATTENTION: "attention off",
    starts.MLP_FIRST: "an MLP before the first attention",
}


def context(evidence: Evidence, verdicts) -> dict | None:
    """A row a cell and dose that has fresh runs, with when the first and the last of its relations were half learnt;
    and one a cell, dose and start other than drawn weights."""
    if evidence.doses.empty:
        return None
    table, steps_at_most, curves = evidence.doses, evidence.config.train.steps, _curves(evidence)
    rows = [
        {
            "heads": heads,
            "dose": dose,
            "runs": runs,
            "apart": _apart(curves[dose][heads], len(runs), steps_at_most) if dose > 1 else "",
            "even": dose_figures.even(dose, evidence.config),
        }
        for (heads, dose), runs in steps.fresh_runs(table).groupby(["num_heads", "relations"])
    ]
    others = [
        {"start": words, "heads": heads, "dose": dose, "runs": runs, "to_the_cap": start in starts.TO_THE_CAP}
        for start, words in STARTS.items()
        for (heads, dose), runs in table[table.stage == start].groupby(["num_heads", "relations"])
    ]
    return {"rows": rows, "others": others}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    table, config, made = evidence.doses, evidence.config, {}
    if len(steps.fresh_runs(table)):
        against = "against the number of relations, by heads."
        made["steps"] = Drawn(dose_figures.taken(table, config), f"Steps to the threshold {against}")
        losses = dose_figures.left(table, config, evidence.confidence)
        made["left"] = Drawn(losses, f"Relational loss where runs stop {against}")
    if ratios := dose_figures.ratios(table, evidence.confidence):
        alt = f"How many times the steps of {steps.MANY_HEADS} heads one head takes, against the number of relations."
        made["ratio"] = Drawn(dose_figures.ratio(ratios), alt)
    for dose, of_heads in _curves(evidence).items():
        if any(of_heads.values()):
            alt = f"Relational loss at every look with {dose} relations, a line a seed."
            made[f"curves_r{dose}"] = Drawn(dose_figures.learning(of_heads, dose, config), alt)
            alt = f"Loss of each relation at every look with {dose} relations, mean over the seeds."
            made[f"relations_r{dose}"] = Drawn(dose_figures.by_relation(of_heads, dose, config), alt)
    return made


def _curves(evidence: Evidence) -> dict[int, dict[int, dict[str, list[dict]]]]:
    """Looks of the fresh runs, by dose, number of heads and run."""
    curves = {}
    for cell in evidence.planned:
        runs = curves.setdefault(cell.dose, {})[cell.model.num_heads] = {}
        for line in doses.looks(evidence.workdir.cell(cell.name), doses.FRESH, evidence.config):
            if line["loss"] is not None:
                runs.setdefault(line["replica"], []).append(line)
    return curves


def _apart(curves: dict[str, list[dict]], count: int, cap: int) -> str:
    """Medians over `count` runs of the looks at which the first and the last relation first had half of chance left;
    one that never had, or a run that never had a finite loss, counts as the cap."""
    ends = np.full((count, 2), cap)
    for run, lines in enumerate(curves.values()):
        learnt = dict.fromkeys(lines[0]["relations"], cap)
        for line in lines:
            for name, loss in line["relations"].items():
                if loss is not None and loss <= dose_figures.CHANCE / 2:
                    learnt[name] = min(learnt[name], line["step"])
        ends[run] = min(learnt.values()), max(learnt.values())
    return " and ".join(f"{median:,.0f}" for median in np.median(ends, axis=0))
