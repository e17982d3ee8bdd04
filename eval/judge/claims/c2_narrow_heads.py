"""C2: can heads be too many? At d_k = 1 a head is as narrow as it can be."""

import dataclasses
import functools

import pandas as pd

from eval.judge import rules
from eval.judge.evidence import Evidence
from eval.judge.paired import asides, decision, showing
from eval.judge.paired.comparison import WIDTHS
from eval.judge.verdict import Verdict

ID = "C2"
STATEMENT = "At d_k = 1 the loss exceeds that of wider heads at the same size"
RULE = decision.RULE
OUTCOMES = {
    rules.SUPPORTED: "the loss at d_k = 1 exceeds that at h*",
    rules.REFUTED: "the loss at d_k = 1 does not exceed that at h*",
    rules.UNDECIDED: "it is open whether the loss at d_k = 1 exceeds that at h*",
}
ALSO = "It is the width: so also where h is fixed and d_k varies, and with the best scale of the logits."
NOT_SHOWN = (
    "Whether it is the width or the number of heads is not shown: that takes an arm with h fixed and d_k varied, and "
    "one with the best scale of the logits (--arms)."
)
applies, look = decision.applies, functools.partial(decision.look, comparison=WIDTHS)


def judge(evidence: Evidence) -> Verdict:
    """Arms say whether it is the width."""
    verdict = decision.judge(evidence, WIDTHS, (ID, STATEMENT), OUTCOMES, _aside)
    if verdict.missing:
        return verdict
    higher = {arm.kind for arm in evidence.cited(ID) if (arm.verdicts[ID]["low"] or 0) > 0}
    width = ALSO if {"d_k", "scaling"} <= higher else NOT_SHOWN
    notes = (*verdict.notes, width) if verdict.verdict == rules.SUPPORTED else verdict.notes
    best = [
        f"{name}: one of {', '.join(found['cells'])} is the best, with {100 * verdict.confidence:.4g} % confidence "
        f"(Hsu), over {found['seeds']} seeds of which no run diverged."
        for name, found in verdict.details["may_be_best"].items()
        if found["cells"]
    ]
    more = [*best, *showing.of_intervals(verdict), *showing.of_seeds(verdict)]
    shown = showing.shown(verdict, more, "test loss at d_k = 1 less that at h*")
    return dataclasses.replace(verdict, notes=notes, shown=shown)


def _aside(evidence: Evidence) -> tuple[dict, list[str]]:
    """The set of best d_k of each group."""
    sets = {}
    for name, sides in WIDTHS.sides(evidence.losses.cells).items():
        inside, seeds = asides.best_set(evidence.losses, pd.concat(sides).cell.tolist(), evidence.confidence)
        sets[name] = {"cells": [cell for cell, may_be in inside.items() if may_be], "seeds": seeds}
    return {"may_be_best": sets}, []
