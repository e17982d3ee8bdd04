"""C6: can most heads go at little loss?"""

import dataclasses

import numpy as np
import pandas as pd

from eval.heads.importance import orders
from eval.judge import intervals, rule_m, rules
from eval.judge.evidence import Evidence
from eval.judge.paired import decision
from eval.judge.rule_m import OPEN
from eval.judge.single import by_model, recovered, redundancy
from eval.judge.single.redundancy import SHARE
from eval.judge.verdict import Verdict
from train.grid import Replica
from train.study import recovery

ID = "C6"
STATEMENT = f"{SHARE:.0%} of the heads can be removed at little loss"
_WORDS = {"share": SHARE, "tolerance": redundancy.TOLERANCE, "least": redundancy.LEAST_OF_ALL}
RULE = f"{redundancy.RULE.format(**_WORDS)}; {rule_m.RULE}"
OUTCOMES = {
    rules.SUPPORTED: f"{SHARE:.0%} of the heads can go at a rise of at most {redundancy.TOLERANCE:.0%} of the loss",
    rules.REFUTED: f"removing {SHARE:.0%} of the heads costs more than {redundancy.TOLERANCE:.0%} of the loss",
    rules.UNDECIDED: f"it is open whether {SHARE:.0%} of the heads can go at {redundancy.TOLERANCE:.0%} of the loss",
}
AMONG_HEADS = "Redundancy is among heads: as many heads drawn at random within their layers cost more."
NOT_AMONG_HEADS = "It does not beat as many heads drawn at random within their layers, so it is not shown among heads."


def applies(evidence: Evidence) -> str:
    lacks = "" if evidence.config.pruning.recovery_steps else "No run goes on without heads, pruning.recovery_steps=0."
    return decision.applies(evidence) or lacks


def recoveries(evidence: Evidence) -> list[tuple[str, Replica, list]]:
    """The runs that the rule wants, given those that there are: cell, run, and the heads that it lacks."""
    return recovered.wanted(evidence)


def look(evidence: Evidence) -> dict | None:
    return None if _missing(evidence) else by_model.look(evidence)


def judge(evidence: Evidence) -> Verdict:
    """In the primary cell; others are shown. Details have the rise of every cell, order and share with its answer."""
    lacks = _missing(evidence)
    verdict = Verdict(
        ID, STATEMENT, rules.UNDECIDED, "", RULE, redundancy.TOLERANCE, evidence.confidence, missing=tuple(lacks)
    )
    if lacks:
        return dataclasses.replace(verdict, sentence=f"On {evidence.corpus.source}, not tested: {' '.join(lacks)}")
    chosen, rises = recovered.chosen_order(evidence), recovered.rises(evidence, 1 - evidence.confidence)
    answers = {}
    for cell in by_model.cells(evidence):
        mine = rises[(rises.cell == cell) & (rises.what == recovery.PRUNED) & (rises.order == chosen)]
        at_share = mine[mine.removed == recovered.count(evidence, cell, SHARE)].set_index("replica").answer
        if len(at_share):
            answers[cell] = {name: at_share.get(name, OPEN) for name in by_model.runs(evidence, cell)}
    cell, tokens = by_model.primary(evidence), recovered.tokens(evidence)
    decided = by_model.decided(verdict, evidence, answers, OUTCOMES, tokens)
    mine = rises[(rises.cell == cell) & (rises.removed == recovered.count(evidence, cell, SHARE))]
    by_order = {
        name: own.set_index("replica").rise for name, own in mine[mine.what == recovery.PRUNED].groupby("order")
    }
    interval = intervals.over_seeds(by_order[chosen].to_numpy(), evidence.confidence)
    beats = _beats(by_order[chosen], by_order.get(orders.WITHIN_LAYERS), evidence.confidence)
    means = rises.groupby(["cell", "what", "order", "removed", "heads"]).rise.mean().reset_index()
    more = tuple(
        f"{row.cell}, {row.removed} of {row.heads} heads gone, {row.order}{_SAID[row.what]}: {row.rise:+.1%} of the "
        f"loss."
        for row in means.itertuples()
    )
    heads = int(mine.heads.iloc[0])
    note = (
        f"{recovered.count(evidence, cell, SHARE)} of {heads} heads, order {chosen}, "
        f"{evidence.config.pruning.recovery_steps} further steps: the loss rises by {interval.mean:+.1%} of the "
        f"copy's (over seeds {interval.low:+.1%} to {interval.high:+.1%})."
    )
    among = AMONG_HEADS if beats else NOT_AMONG_HEADS
    return dataclasses.replace(
        decided,
        effect=interval.mean,
        low=None if np.isnan(interval.low) else interval.low,
        high=None if np.isnan(interval.high) else interval.high,
        notes=(note, among) if decided.verdict == rules.SUPPORTED else (note,),
        details={"order": chosen, "beats_random_within_layers": beats, "rises": rises.to_dict("records")},
        shown=dataclasses.replace(decided.shown, more=(*decided.shown.more, *more)),
    )


_SAID = {recovery.PRUNED: "", recovery.FROM_SCRATCH: ", trained so from scratch"}


def _beats(own: pd.Series, random: pd.Series | None, confidence: float) -> bool:
    """Whether the rises are smaller than those of heads drawn at random within layers, paired by seed."""
    if random is None:
        return False
    return bool(intervals.over_seeds((own - random).dropna().to_numpy(), confidence).high < 0)


def _missing(evidence: Evidence) -> list[str]:
    """What keeps the claim from being tested, in sentences."""
    cell, curves = by_model.primary(evidence), recovered.curves(evidence)
    files = evidence.losses.documents[evidence.losses.documents.cell == cell]
    lacks = "Heads were not removed; pruning.orders names orders, --mode=eval --measure=pruning follows them."
    said = by_model.missing(evidence, files if len(curves) else files[:0], cell, lacks)
    if said:
        return said
    share_there = any(np.isclose(share, SHARE) for share in evidence.config.pruning.shares)
    waiting = recoveries(evidence)
    whole = recovered.cost_of_all(evidence, cell)
    checks = {
        "grid.tuning_seeds is empty, so the order would be chosen on the very seeds that are judged.":
            not evidence.config.grid.tuning_seeds,
        f"pruning.shares={evidence.config.pruning.shares} lacks {SHARE:g}, the share that is judged.": not share_there,
        f"{len(waiting)} runs without heads are not trained; --mode=study trains them.": bool(waiting),
        f"All heads off cost {whole:.1%} of the loss, and not over {redundancy.LEAST_OF_ALL:.0%}: attention does too "
        f"little for heads to be redundant.": not whole > redundancy.LEAST_OF_ALL,
    }  # fmt: skip
    return [sentence for sentence, holds in checks.items() if holds]
