"""What heads attend to, role by role and cell by cell, and whether they are distinct."""

import pandas as pd

from eval.heads.roles.texts import FEWEST_LINKS
from eval.judge import intervals
from eval.judge.claims import c5_specialisation
from eval.judge.evidence import Evidence
from eval.judge.single import by_model

TABLES = ("roles", "heads")
MOST_ROLES = 40  # a row each; the rest is in the table's file


def context(evidence: Evidence, verdicts) -> dict | None:
    found, profile = (by_model.rows(evidence, table) for table in ("roles", "heads"))
    if found.empty:
        return None
    test = found[found.split == "test"]
    cells = list(dict.fromkeys(test.cell))
    parts = next((verdict.parts for verdict in verdicts if verdict.id == c5_specialisation.ID), ())
    by_place = {(part["role"], part["cell"]): part for part in parts}
    shown = [role for role in dict.fromkeys(test.role) if _enough(test[test.role == role])]
    few = [role for role in dict.fromkeys(test.role) if role not in shown]
    answering = by_model.primary(evidence)
    return {
        "cells": cells,
        "rows": [
            {"role": role, "cells": [by_place.get((role, cell)) for cell in cells]} for role in shown[:MOST_ROLES]
        ],
        "more": max(0, len(shown) - MOST_ROLES),
        "few": few,
        "answering": answering,
        "best": _bests(found[found.cell == answering], shown[:MOST_ROLES]),
        "bears": _bears(test[(test.cell == answering) & (test["head"] >= 0)]),
        "profiles": [_profile(test[test.cell == cell], profile, cell) for cell in cells] if len(profile) else [],
        "claims": evidence.config.claims,
        "least": {"links": FEWEST_LINKS, "files": intervals.ENOUGH_DOCUMENTS},
    }


def _enough(rows: pd.DataFrame) -> bool:
    return bool(rows.queries.max() >= FEWEST_LINKS and rows.files.max() >= intervals.ENOUGH_DOCUMENTS)


def _bests(found: pd.DataFrame, roles: list[str]) -> list[dict]:
    """Of each role that some head of the cell was measured in on tune and test."""
    by_role = {role: found[found.role == role] for role in roles}
    return [_best(mine, role) for role, mine in by_role.items() if len(by_model.best_on_tune(mine[mine["head"] >= 0]))]


def _best(found: pd.DataFrame, role: str) -> dict:
    """Each model's head of the largest effect on tune, and what taking out the role's edges does: medians over models,
    on test."""
    best, mine = by_model.best_on_tune(found[found["head"] >= 0]), found[found.split == "test"]
    whole = mine[mine.layer == -1]
    layers = mine[(mine["head"] < 0) & (mine.layer >= 0)]
    return {
        "role": role,
        "text": mine.text.iloc[0],
        "queries": int(mine.queries.max()),
        "files": float(mine.files.max()),
        "layer": best.layer.mode().iloc[0],
        "which": best.which.mode().iloc[0],
        **{name: float(best[name].median()) for name in ("mass", "reference", "effect", "untrained", "rise")},
        "summed": float(layers.groupby("replica").effect.max().median()),
        "all_heads": float(whole.rise.median()),
        "gain": float(whole.gain.median()),
    }


def _bears(test: pd.DataFrame) -> list[dict]:
    """Of each model the heads that are called, with their roles."""
    called = test[test.called.astype(bool)].sort_values(["layer", "head"])
    return [
        {
            "replica": replica,
            "heads": [
                {"head": f"{layer}.{head}", "roles": ", ".join(rows.role)}
                for (layer, head), rows in called[called.replica == replica].groupby(["layer", "head"])
            ],
        }
        for replica in dict.fromkeys(test.replica)
    ]


def _profile(test: pd.DataFrame, profile: pd.DataFrame, cell: str) -> dict:
    """Of one cell: heads with no role, roles a head bears, inactive heads, and whether heads are distinct."""
    mine = profile[(profile.cell == cell) & (profile.split == "test")]
    of_heads = test[test["head"] >= 0]
    borne = of_heads.groupby(["replica", "layer", "head"]).called.sum()
    by_model = mine.groupby("replica")[["distinct", "distinct_low", "distinct_high"]].first().mean()
    return {
        "cell": cell,
        "heads": int(mine.groupby("replica").size().max()) if len(mine) else 0,
        "none": float((borne == 0).mean()),
        "most": int(borne.max()) if len(borne) else 0,
        **{name: float(mine[name].mean()) for name in ("inactive", "entropy", "first", "confidence", "semantic")},
        **by_model.to_dict(),
    }
