"""The runs of a study of doses: steps, losses and ratios, a row a cell and dose, and the runs from other starts."""

import numpy as np
import pandas as pd

from eval import doses
from eval.judge import steps
from eval.judge.evidence import Evidence
from eval.judge.steps import MANY_HEADS
from eval.report import dose_figures as plots
from eval.report.style import Drawn
from train.config import StudyConfig
from train.run import starts

TABLES = ("dose",)
STARTS = {
    starts.HAND_BUILT: "weights by hand",
    starts.NO_ATTENTION: "attention off",
    starts.MLP_FIRST: "an MLP before the first attention",
}


def context(evidence: Evidence, verdicts) -> dict | None:
    if evidence.doses.empty:
        return None
    return {"confidence": evidence.confidence, "rows": _summary(evidence), "others": _others(evidence.doses)}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    table, config, made = evidence.doses, evidence.config, {}
    if len(steps.fresh_runs(table)):
        made = {
            "steps": Drawn(
                plots.taken(table, config), "Steps to the threshold against the number of relations, by heads."
            ),
            "left": Drawn(
                plots.left(table, config, evidence.confidence),
                "Relational loss where runs stop against the number of relations, by heads.",
            ),
        }
    ratios = plots.ratios(table, evidence.confidence)
    if ratios:
        alt = f"How many times the steps of {MANY_HEADS} heads one head takes, against the number of relations."
        made["ratio"] = Drawn(plots.ratio(ratios), alt)
    for dose, of_heads in _curves(evidence).items():
        if any(of_heads.values()):
            made[f"curves_r{dose}"] = Drawn(
                plots.learning(of_heads, dose, config),
                f"Relational loss at every look with {dose} relations, a line a seed.",
            )
            made[f"relations_r{dose}"] = Drawn(
                plots.by_relation(of_heads, dose, config),
                f"Loss of each relation at every look with {dose} relations, mean over the seeds.",
            )
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


def _summary(evidence: Evidence) -> list[dict]:
    """A row a cell and dose that has fresh runs: its rate, T, when the first and the last of its relations were half
    learnt, and the loss at the stop."""
    fresh, rows, config = steps.fresh_runs(evidence.doses), [], evidence.config
    curves = _curves(evidence)
    for (heads, dose), runs in fresh.groupby(["num_heads", "relations"]):
        rows.append(
            {
                "heads": heads,
                "dose": dose,
                "rate": f"{runs.learning_rate.iloc[0]:g}",
                "median": f"{runs.steps.median():,.0f}",
                "range": f"{runs.steps.min():,} to {runs.steps.max():,}",
                "capped": f"{(runs.outcome != 'reached').sum()} of {len(runs)}",
                "apart": _apart(curves[dose][heads], len(runs), config) if dose > 1 else "",
                "loss": f"{runs.loss.mean():.3f}",
                "shortcut": f"{runs.shortcut.mean():.3f}",
                "even": f"{even:.3f}" if (even := plots.even(dose, config)) else "",
            }
        )
    return rows


def _apart(curves: dict[str, list[dict]], count: int, config: StudyConfig) -> str:
    """Medians over `count` runs of the looks at which the first and the last relation first had half of chance left;
    one that never had, or a run that never had a finite loss, counts as the cap."""
    cap = config.train.steps
    first, last = ([cap] * (count - len(curves)) for _ in range(2))
    for lines in curves.values():
        learnt = dict.fromkeys(lines[0]["relations"], cap)
        for line in lines:
            for name, loss in line["relations"].items():
                if loss is not None and loss <= plots.CHANCE / 2:
                    learnt[name] = min(learnt[name], line["step"])
        first.append(min(learnt.values()))
        last.append(max(learnt.values()))
    return f"{np.median(first):,.0f} and {np.median(last):,.0f}"


def _others(table: pd.DataFrame) -> list[dict]:
    """A row a cell, dose and start other than drawn weights."""
    rows = []
    for start, words in STARTS.items():
        to_the_cap = start in starts.TO_THE_CAP
        for (heads, dose), runs in table[table.stage == start].groupby(["num_heads", "relations"]):
            rows.append(
                {
                    "start": words,
                    "heads": heads,
                    "dose": dose,
                    "rate": f"{runs.learning_rate.iloc[0]:g}",
                    "reached": "" if to_the_cap else f"{(runs.outcome == 'reached').sum()} of {len(runs)}",
                    "median": "" if to_the_cap else f"{runs.steps.median():,.0f}",
                    "loss": f"{runs.loss.mean():.3f}",
                    "worst": f"{runs.worst.max():.3f}",
                    "query_alone": "" if runs.query_alone.isna().all() else f"{runs.query_alone.mean():.3f}",
                }
            )
    return rows
