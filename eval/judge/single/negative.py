"""Claim C8 in one model, on arrays alone: does removing some head lower the loss by more than a margin?"""

from typing import NamedTuple

import numpy as np

from eval.judge import over_files, stats
from eval.judge.rule_m import NO, OPEN, YES

MARGIN = 0.003  # nats a token; at 64 heads noise of .0006 to .0009 a head could not show less
RULE = (
    "candidates are heads whose removal lowers the loss on tune under zero and under mean ablation; on test a t over "
    "source files; yes: some candidate's upper limits are below -{margin:g} nats/token under both ablations, Holm over "
    "the candidates; no: every head's lower limit, Bonferroni over heads, is above -{margin:g} under at "
    "least one; at least {files} files"
)


class Judged(NamedTuple):
    """One model as judged; heads in the order of the arrays.

    Attributes:
      answer: YES, NO or OPEN.
      candidates, confirmed: bool (heads,).
      effect: (heads,) the larger rise under the two ablations on test, nats a token.
      low: (heads,) the larger of the simultaneous lower limits.
    """

    answer: str
    candidates: np.ndarray
    confirmed: np.ndarray
    effect: np.ndarray
    low: np.ndarray


def judge(
    tune: np.ndarray, test: np.ndarray, tokens: np.ndarray, margin: float = MARGIN, alpha: float = 0.05
) -> Judged:
    """The answer of one model.

    Args:
      tune: (2, heads) rise in nats on tune with each head closed, under zero and mean ablation.
      test: (2, heads, m) rise in nats on each file of test, summed over its tokens.
      tokens: (m,) of each file of test.
    """
    candidates = (np.asarray(tune) < 0).all(axis=0)
    found = over_files.per_token(test, tokens)
    confirmed = np.zeros_like(candidates)
    confirmed[candidates] = stats.rejected(found.p_below(-margin).max(axis=0)[candidates], alpha, "holm")
    # Of a head that hurts, either limit errs with alpha / heads at most, so both together with alpha from two heads on.
    low = found.low(alpha / max(2, len(candidates))).max(axis=0)
    answer = YES if confirmed.any() else NO if (low > -margin).all() else OPEN
    return Judged(answer, candidates, confirmed, found.mean.max(axis=0), low)
