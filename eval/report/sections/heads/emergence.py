"""When heads take their roles: the effect and what the role's targets cost, at every kept checkpoint."""

import numpy as np
import pandas as pd

from eval.judge.evidence import Evidence
from eval.judge.single import by_model
from eval.report import figures as plots
from eval.report.style import Drawn

TABLES = ("emergence",)
MOST_ROLES = 6  # lines of a figure that can be told apart, those with the largest effects
LEAST_GAIN = 0.05  # nats at the end; half of less is noise


def context(evidence: Evidence, verdicts) -> dict | None:
    found = called(evidence)
    if found.empty:
        return None
    return {"rows": [_row(*key, rows) for key, rows in found.groupby(["cell", "role"], sort=False)]}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    return {
        f"emergence_{cell}": Drawn(
            plots.emergence(_medians(rows), cell),
            f"Effects of roles, and loss of their targets, against the training step in {cell}.",
        )
        for cell, rows in called(evidence).groupby("cell", sort=False)
    }


def called(evidence: Evidence) -> pd.DataFrame:
    """What was measured on test of each cell's roles that a head of some model is called by at the end."""
    over, ended = (by_model.rows(evidence, table) for table in ("emergence", "roles"))
    if over.empty or ended.empty:
        return pd.DataFrame()
    borne = ended[(ended.split == "test") & (ended["head"] >= 0) & (ended.called == True)]  # noqa: E712
    return over[over.split == "test"].merge(borne[["cell", "role"]].drop_duplicates())


def _medians(rows: pd.DataFrame) -> pd.DataFrame:
    """By role and step, the roles in the order of their effects at the end, MOST_ROLES at most."""
    medians = rows.groupby(["role", "step"])[["effect", "linked"]].median().reset_index()
    ended = medians[medians.step == medians.step.max()].sort_values("effect", ascending=False)
    place = {role: at for at, role in enumerate(ended.role[:MOST_ROLES])}
    medians = medians[medians.role.isin(place)]
    return medians.assign(place=medians.role.map(place)).sort_values(["place", "step"])


def _row(cell: str, role: str, rows: pd.DataFrame) -> dict:
    steps = [half_way(one.sort_values("step")) for _, one in rows.groupby("replica")]
    pattern, saved = np.array(steps, float).T
    both = np.isfinite(pattern) & np.isfinite(saved)
    order = [int((both & where).sum()) for where in (pattern < saved, pattern == saved, pattern > saved)]
    last = rows[rows.step == rows.step.max()]
    median = lambda steps: float(np.median(steps[np.isfinite(steps)])) if np.isfinite(steps).any() else None  # noqa: E731
    return {
        "cell": cell,
        "role": role,
        "effect": float(last.effect.median()),
        "gain": float((last.others - last.linked).median()),
        "pattern": median(pattern),
        "saved": median(saved),
        "order": order if both.any() else None,
    }


def half_way(rows: pd.DataFrame) -> tuple[float, float]:
    """Of one model and role, its rows by step: the first step with half of the effect at the end, and that with half of
    the gain; nan where there is no effect, or no gain of LEAST_GAIN."""
    found = []
    for values, least in ((rows.effect, 0.0), (rows.others - rows.linked, LEAST_GAIN)):
        values, steps = values.to_numpy(), rows.step.to_numpy()
        found.append(float(steps[values >= values[-1] / 2][0]) if values[-1] > least else float("nan"))
    return tuple(found)
