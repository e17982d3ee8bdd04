"""The rules by which a difference becomes a verdict, on arrays alone, so that simulated studies can try them."""

import math
from typing import NamedTuple

import numpy as np

from eval.judge import intervals, stats

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
RULE = (
    "supported: the interval's lower end is above 0 and its upper end at least the margin; refuted: its upper end is "
    "below the margin; else undecided"
)


class Judged(NamedTuple):
    """A difference (n seeds, m files) as judged.

    Attributes:
      verdict: by RULE on `deciding`.
      deciding: the interval for new documents where there are intervals.ENOUGH_DOCUMENTS effective ones whose files are
        in no other split, else `these`.
      these, new: both intervals.
      files: effective number of files.
      negative: of several parts, those whose mean is below 0 under Holm.
    """

    verdict: str
    deciding: intervals.Interval
    these: intervals.Interval
    new: intervals.Interval
    files: float
    negative: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        return "new documents" if self.deciding is self.new else "these documents"


def decide(low: float, high: float, margin: float) -> str:
    """The verdict of an interval by RULE; without one (nan) it is undecided."""
    if high < margin:
        return REFUTED
    return SUPPORTED if low > 0 and high >= margin else UNDECIDED


def judge(sums: np.ndarray, tokens: np.ndarray, margin: float, confidence: float = 0.95, apart: bool = True) -> Judged:
    """The verdict on a difference.

    Args:
      sums: (n, m) difference in nats of each seed on each file, summed over its tokens.
      tokens: (m,) tokens of each file.
      margin: nats/token.
      apart: whether the files are in no other split; else the verdict is about these documents, however many.
    """
    these = intervals.these_documents(sums, tokens, confidence)
    new = intervals.new_documents(sums, tokens, confidence)
    files = intervals.effective_documents(tokens)
    enough = apart and files >= intervals.ENOUGH_DOCUMENTS and not math.isnan(new.low)
    deciding = new if enough else these
    return Judged(decide(deciding.low, deciding.high, margin), deciding, these, new, files)


def judge_pooled(
    parts: dict[str, np.ndarray], tokens: np.ndarray, margin: float, confidence: float = 0.95, apart: bool = True
) -> tuple[Judged, dict[str, Judged]]:
    """The verdict on the mean of several parts (one a d_model) within each seed, and each part's own under Holm:
    undecided where Holm over all of them does not reject what the verdict denies: for `supported` that the difference
    is at most 0, for `refuted` that it is at least the margin, each at half of 1 - confidence, the interval's tail. One
    part alone keeps its verdict.

    A part whose mean is below 0 under Holm, over the parts at 1 - confidence, turns a pooled `supported` into
    `undecided`.

    Args:
      parts: (n, m) each, the same seeds and files in all.
    """
    each = {name: judge(sums, tokens, margin, confidence, apart) for name, sums in parts.items()}
    deciding, alpha = [found.deciding for found in each.values()], 1 - confidence
    p_values = {
        SUPPORTED: [intervals.p_of_so_low(found._replace(mean=-found.mean)) for found in deciding],
        REFUTED: [intervals.p_of_so_low(found._replace(mean=found.mean - margin)) for found in deciding],
    }
    holds = {verdict: stats.rejected(values, alpha / 2, "holm") for verdict, values in p_values.items()}
    each = {
        name: found if found.verdict == UNDECIDED or holds[found.verdict][place] else found._replace(verdict=UNDECIDED)
        for place, (name, found) in enumerate(each.items())
    }
    pooled = judge(np.mean(list(parts.values()), axis=0), tokens, margin, confidence, apart)
    below = stats.rejected([intervals.p_of_so_low(found) for found in deciding], alpha, "holm")
    negative = tuple(name for name, out in zip(each, below, strict=True) if out)
    verdict = UNDECIDED if negative and pooled.verdict == SUPPORTED else pooled.verdict
    return pooled._replace(verdict=verdict, negative=negative), each


def best(tune_losses: dict):
    """The key of the lowest tune loss; the first of those that tie."""
    return min(tune_losses, key=tune_losses.get)
