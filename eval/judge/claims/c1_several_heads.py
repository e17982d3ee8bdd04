"""C1: does multi-head beat single-head at the same size?"""

import dataclasses
import functools

import numpy as np

from eval.judge import losses, rules
from eval.judge.evidence import Evidence
from eval.judge.paired import asides, decision, showing
from eval.judge.paired.comparison import HEADS, best
from eval.judge.verdict import Verdict

ID = "C1"
STATEMENT = "Several heads {faster} one at the same size"
RULE = decision.RULE
FIXED_HEADS = 4  # a number of heads that no data chose, printed beside the best one
LONGER = 4  # times the tokens at which 'learns faster' becomes 'beats'
MORE_TOKENS = 1.05  # the margin is compared with what 5 % more tokens bring
applies, look = decision.applies, functools.partial(decision.look, comparison=HEADS)


def judge(evidence: Evidence) -> Verdict:
    """Without an arm of LONGER times the tokens that agrees, heads 'learn faster' and do not 'beat'."""
    longer = [arm for arm in evidence.cited(ID) if arm.kind == "tokens" and arm.ratio >= LONGER]
    holds = any(arm.verdicts[ID]["verdict"] == rules.SUPPORTED for arm in longer)
    faster = "beat" if holds else "learn faster than"
    outcomes = {
        rules.SUPPORTED: f"several heads {faster} one",
        rules.REFUTED: f"several heads do not {faster} one",
        rules.UNDECIDED: f"it is open whether several heads {faster} one",
    }
    verdict = decision.judge(evidence, HEADS, (ID, STATEMENT.format(faster=faster)), outcomes, _aside)
    verdict.details["margin_in_tokens"] = gain_of_more_tokens(evidence)
    return verdict if verdict.missing else dataclasses.replace(verdict, shown=shown(verdict))


def shown(verdict: Verdict) -> showing.Shown:
    fixed, gain = (verdict.details[name] for name in ("fixed_heads", "margin_in_tokens"))
    own, depths = {f"against h = {FIXED_HEADS}": fixed} if fixed else {}, verdict.details["depth"].items()
    others = {f"A{name[1:]}, which no data chose": one for name, one in own.items()}
    others |= {f"{name}, {' less '.join(depth['cells'])}": depth for name, depth in depths}
    means = f"What the margin means: 5 % more tokens lower the training loss by about {gain or 0:.4f} nats/token here."
    more = [
        *showing.of_intervals(verdict),
        *(f"{name}, {verdict.about}: {showing.ends(one)}, {one['verdict']}." for name, one in others.items()),
        *showing.of_seeds(verdict),
        *([] if gain is None else [means]),
    ]
    return showing.shown(verdict, more, "test loss at h = 1 less that at h*", own)


def _aside(evidence: Evidence) -> tuple[dict, list[str]]:
    """Beside the best number of heads the one that no data chose, None where a group has no such cell; and depth."""
    judged = evidence.losses
    sides = [(left, right[right.num_heads == FIXED_HEADS]) for left, right in HEADS.sides(judged.cells).values()]
    whole = not any(left.empty or fixed.empty for left, fixed in sides)
    both = [losses.difference(judged, best(left), best(fixed)) for left, fixed in sides if whole]
    pooled = losses.averaged(both) if both else ()
    fixed = asides.on_its_own(evidence, pooled) if len(pooled) else None
    lacks = f"Not every group has a cell of {FIXED_HEADS} heads, the number that no data chose, so that comparison is "
    return {"fixed_heads": fixed, "depth": _depth(evidence)}, [f"{lacks}left out."] if fixed is None else []


def _depth(evidence: Evidence) -> dict:
    """Many layers of one head less few layers of several, the best on `tune` of the shallowest (Liu et al. 2021), for
    each d_model with several numbers of layers."""
    found, outcome = evidence.losses, {}
    for (d_model, series), cells in found.cells.groupby(["d_model", "series"]):
        deep = cells[(cells.num_layers == cells.num_layers.max()) & (cells.num_heads == 1)]
        shallow = cells[(cells.num_layers == cells.num_layers.min()) & (cells.num_heads > 1)]
        if cells.num_layers.nunique() > 1 and len(deep) and len(shallow):
            pair = [best(deep), best(shallow)]
            judged = asides.on_its_own(evidence, losses.difference(found, *pair))
            outcome[f"d_model {d_model}" + (f", {series}" if series else "")] = {"cells": pair, **judged}
    return outcome


def gain_of_more_tokens(evidence: Evidence) -> float | None:
    """How much the training loss of the judged runs falls, in nats/token, as tokens grow by MORE_TOKENS: the slope over
    the last half of the steps against the logarithm of the step."""
    late = [mean[mean.index >= mean.index.max() / 2] for mean in evidence.curves.values() if len(mean)]
    slopes = [np.polyfit(np.log(each.index + 1), each, 1)[0] for each in late if len(each) > 2]
    return float(-np.mean(slopes) * np.log(MORE_TOKENS)) if slopes else None
