"""Claim C6 in one model, on arrays alone: does it lose little when most of its heads are gone?"""

from typing import NamedTuple

import numpy as np

from eval.judge import over_files
from eval.judge.rule_m import NO, OPEN, YES

SHARE = 0.7  # of the heads, removed
TOLERANCE = 0.01  # of the loss
LEAST_OF_ALL = 0.1  # of the loss, that all heads off must cost, else attention does nothing that could be redundant
RULE = (
    "{share:.0%} of the heads are removed in the order that did best on tuning seeds, found on tune; the model trains "
    "on for a few steps, and so does an unpruned copy; on test the rise of the loss relative to the copy's, with a "
    "95 % t interval over source files; yes: its upper limit is at most {tolerance:.0%}; no: its lower limit is above; "
    "not testable unless all heads off cost over {least:.0%}"
)


class Judged(NamedTuple):
    """One model as judged: the answer, and the relative rise with its interval."""

    answer: str
    rise: float
    low: float
    high: float


def judge(pruned: np.ndarray, copy: np.ndarray, tolerance: float = TOLERANCE, alpha: float = 0.05) -> Judged:
    """The answer of one model.

    Args:
      pruned, copy: (m,) loss in nats of each source file, summed over its tokens, of the model without the heads and
        of the whole one that trained as much.
    """
    found = over_files.relative(pruned, copy)
    low, high = float(found.low(alpha / 2)), float(found.high(alpha / 2))
    return Judged(YES if high <= tolerance else NO if low > tolerance else OPEN, float(found.mean), low, high)
