"""C4b: can one head not hold six relations at once?"""

import numpy as np

from eval.judge import intervals, rules, steps
from eval.judge.evidence import Evidence
from eval.judge.steps import MANY, ONE_HEAD, Decision, Steps
from eval.judge.verdict import Verdict
from train.config import StudyConfig
from train.run import starts

ID = "C4b"
STATEMENT = "One head cannot hold many relations"
RULE = (
    "controls as for C4a, and a cap of at least 10 times the median T(8, 6); refuted: upper limit of y(1, 6) at most "
    "{threshold}, or the hand-built start holds; supported: lower limit above {threshold} and the hand-built start "
    "does not hold; hand-built runs train at a tenth of the smallest rate tried, which was set after trying higher ones"
)
FAR = 10  # a cap this many times the median T(8, 6) is far enough to speak of capacity
HOLDS = 4 / 6  # of the runs from hand-built weights
CAP_TOO_NEAR = "cap too near"
NEEDS_HAND_BUILT = "runs from hand-built weights are lacking"
applies = steps.applies


def cannot(
    losses: np.ndarray,
    many_heads_6: Steps,
    cap: int,
    controls: bool,
    threshold: float,
    hand_built: np.ndarray | None = None,
    confidence: float = 0.95,
) -> Decision:
    """`refuted`: the upper limit of y(1, 6) is at most the threshold, or the hand-built start stays at most there at
    every look in at least HOLDS of its runs; `supported`: the lower limit is above the threshold and the hand-built
    start does not hold; `undecided` where the controls fail, the cap is below FAR times the median T(8, 6), or the
    hand-built runs that would decide are lacking.

    Args:
      losses: (n,) relational loss in nats a bit of one head at its stop: its first look below the threshold, or the
        cap.
      controls: what `steps.controls_hold` says.
      threshold: nats a bit, the study's own, at which its runs stop.
      hand_built: (runs,) the largest loss over all looks of each run from hand-built weights, None before they
        have run.
    """
    interval = intervals.over_seeds(losses, confidence)
    if not controls:
        return Decision(rules.UNDECIDED, steps.NOT_TESTABLE, interval)
    if cap < FAR * many_heads_6.median:
        return Decision(rules.UNDECIDED, CAP_TOO_NEAR, interval)
    holds = hand_built is not None and np.mean(np.asarray(hand_built) <= threshold) >= HOLDS
    if interval.high <= threshold or holds:
        return Decision(rules.REFUTED, "", interval)
    if not interval.low > threshold:
        return Decision(rules.UNDECIDED, "", interval)
    lacking = Decision(rules.UNDECIDED, NEEDS_HAND_BUILT, interval)
    return lacking if hand_built is None else Decision(rules.SUPPORTED, "", interval)


def asks_for_hand_built(dose: int, losses: list[float], config: StudyConfig) -> bool:
    """Whether the rule wants runs of one head from weights by hand, given the losses of its fresh runs at a dose."""
    low = intervals.over_seeds(np.array(losses), 1 - 0.05 / config.claims.looks).low
    return dose == MANY and low > config.dose.threshold


def further(evidence: Evidence) -> list[tuple[str, int]]:
    """The (cell, dose) of one head of which the rule wants runs from weights by hand, those that have them too."""
    fresh = steps.fresh_runs(evidence.doses)
    of_one = fresh[fresh.num_heads == ONE_HEAD].groupby(["cell", "relations"]).loss if len(fresh) else ()
    return [named for named, losses in of_one if asks_for_hand_built(named[1], losses.to_list(), evidence.config)]


def judge(evidence: Evidence) -> Verdict:
    """On the study's shallowest models."""
    config, confidence, threshold = evidence.config, evidence.confidence, evidence.config.dose.threshold
    rule = RULE.format(threshold=f"{threshold:g}".removeprefix("0"))
    verdict = steps.undecided(evidence, (ID, STATEMENT, rule))
    if verdict.missing:
        return verdict
    table, fresh = evidence.doses, steps.shallowest(evidence)
    one_few, many_few, _, many_many = steps.four(fresh)
    controls = steps.controls_hold(one_few, many_few, many_many, confidence)
    last = fresh[(fresh.num_heads == ONE_HEAD) & (fresh.relations == MANY)].sort_values("seed").loss.to_numpy(float)
    by_hand = table[(table.stage == starts.HAND_BUILT) & (table.num_heads == ONE_HEAD) & (table.relations == MANY)]
    by_hand = by_hand[by_hand.num_layers == fresh.num_layers.min()]
    rate, kept = by_hand.learning_rate.min(), by_hand.worst.to_numpy(float)
    decision = cannot(last, many_many, config.train.steps, controls, threshold, kept if len(kept) else None, confidence)
    left = decision.interval
    held = (
        f"At its stop with {MANY} relations one head leaves {left.mean:.3f} nats a bit ({confidence:g} interval "
        f"{left.low:.3f} to {left.high:.3f}); the threshold is {threshold:g}."
    )
    if len(kept):
        held += (
            f" From weights by hand that tell all {2**MANY} answers apart, trained at a rate of {rate:g}, "
            f"{(kept <= threshold).sum()} of {len(kept)} runs stay below it at every look up to the cap (of all looks "
            f"the largest: {kept.max():.3f})."
        )
    return steps.decided(verdict, decision, held, evidence)
