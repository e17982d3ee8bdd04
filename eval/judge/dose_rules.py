"""The rules of C4 on arrays: does one head learn many relations slower than eight (a), can it not hold them (b)?

T(h, r) is the number of training steps until the relational loss is at most THRESHOLD nats a bit; a run that does not
get there counts as the cap. Every array has one entry a fresh seed, in the same order.
"""

import math
from typing import NamedTuple

import numpy as np

from eval.judge import intervals
from eval.judge.intervals import Interval
from eval.judge.rules import REFUTED, SUPPORTED, UNDECIDED

THRESHOLD = 0.05  # nats a bit
CONTROL = math.log(2)  # the gap at one relation must lie within
SLOWER = math.log(1.5)  # a gap at six relations that matters
FAR = 10  # a cap this many times the median T(8, 6) is far enough to speak of capacity
HOLDS = 4 / 6  # of the runs from hand-built weights
NOT_TESTABLE = "not testable here"
CAP_TOO_NEAR = "cap too near"
NEEDS_HAND_BUILT = "runs from hand-built weights are lacking"


class Steps(NamedTuple):
    """T of a (number of heads, number of relations).

    Attributes:
      steps: (n,), the cap where it was not reached.
      reached: bool (n,).
    """

    steps: np.ndarray
    reached: np.ndarray


class Judged(NamedTuple):
    """A verdict with what decided it.

    Attributes:
      why: of an undecided one, '' where the interval alone leaves it open.
      gap, growth: C4a: intervals of G(6), and of G(6) - G(1); C4b: of y(1, 6), and None.
    """

    verdict: str
    why: str
    gap: Interval | None
    growth: Interval | None


def gap(one_head: Steps, many_heads: Steps) -> np.ndarray:
    """G = ln T(1, r) - ln T(8, r) of each seed, (n,)."""
    return np.log(one_head.steps) - np.log(many_heads.steps)


def controls_hold(one_head_1: Steps, many_heads_1: Steps, many_heads_6: Steps, confidence: float = 0.95) -> bool:
    """Eight heads get there with six relations in every seed, and with one relation both need about the same."""
    control = intervals.over_seeds(gap(one_head_1, many_heads_1), confidence)
    return bool(np.all(many_heads_6.reached)) and -CONTROL < control.low and control.high < CONTROL


def slower(
    one_head_1: Steps, many_heads_1: Steps, one_head_6: Steps, many_heads_6: Steps, confidence: float = 0.95
) -> Judged:
    """C4a. `supported`: the lower limits of G(6) - G(1) above 0 and of G(6) above SLOWER; `refuted`: the upper limit of
    G(6) below SLOWER; `undecided: not testable here` where the controls fail."""
    first, last = gap(one_head_1, many_heads_1), gap(one_head_6, many_heads_6)
    found, growth = intervals.over_seeds(last, confidence), intervals.over_seeds(last - first, confidence)
    if not controls_hold(one_head_1, many_heads_1, many_heads_6, confidence):
        return Judged(UNDECIDED, NOT_TESTABLE, found, growth)
    if found.high < SLOWER:
        return Judged(REFUTED, "", found, growth)
    supported = found.low > SLOWER and growth.low > 0
    return Judged(SUPPORTED if supported else UNDECIDED, "", found, growth)


def cannot(
    losses: np.ndarray,
    many_heads_6: Steps,
    cap: int,
    controls: bool,
    hand_built: np.ndarray | None = None,
    confidence: float = 0.95,
) -> Judged:
    """C4b: can one head not hold six relations at once?

    `refuted`: the upper limit of y(1, 6) is at most THRESHOLD, or the hand-built start stays at most THRESHOLD at every
    look in at least HOLDS of its runs; `supported`: the lower limit is above THRESHOLD and the hand-built start
    does not hold; `undecided` where the controls fail, the cap is below FAR times the median T(8, 6), or the hand-built
    runs that would decide are lacking.

    Args:
      losses: (n,) relational loss in nats a bit of one head at its stop: its first look below THRESHOLD, or the cap.
      controls: what `controls_hold` says.
      hand_built: (runs,) the largest loss over all looks of each run from hand-built weights, None before they
        have run.
    """
    found = intervals.over_seeds(losses, confidence)
    if not controls:
        return Judged(UNDECIDED, NOT_TESTABLE, found, None)
    if cap < FAR * np.median(many_heads_6.steps):
        return Judged(UNDECIDED, CAP_TOO_NEAR, found, None)
    holds = hand_built is not None and np.mean(np.asarray(hand_built) <= THRESHOLD) >= HOLDS
    if found.high <= THRESHOLD or holds:
        return Judged(REFUTED, "", found, None)
    if not found.low > THRESHOLD:
        return Judged(UNDECIDED, "", found, None)
    if hand_built is None:
        return Judged(UNDECIDED, NEEDS_HAND_BUILT, found, None)
    return Judged(SUPPORTED, "", found, None)
