"""Rule M, of claims that each model answers by itself: a seed says yes, no or neither, and their shares decide."""

from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binomtest

from eval.judge import rules

YES, NO, OPEN = "yes", "no", "open"
FEWEST_SEEDS = 5  # of fewer not even full agreement is evidence: .5^4 = .06
CONFIDENCE = 0.95
MOST_SEEDS = 1000  # that a plan asks for
RULE = (
    f"a seed answers yes, no or open by its own interval over files; supported: the one-sided {100 * CONFIDENCE:.0f} % "
    "Clopper-Pearson limit of the share of yes is above one half; refuted: the same of no; else undecided; open and "
    f"diverged seeds count as neither; fewer than {FEWEST_SEEDS} seeds: not testable"
)


class Shares(NamedTuple):
    """How the seeds answered, and what follows.

    Attributes:
      verdict: by RULE; None where there are fewer than FEWEST_SEEDS.
      yes, no, open: numbers of seeds; diverged ones are among the open.
      seeds: their sum.
      yes_low, no_low: one-sided Clopper-Pearson lower limits of the shares of yes and of no, at CONFIDENCE as a rule.
    """

    verdict: str | None
    yes: int
    no: int
    open: int
    seeds: int
    yes_low: float
    no_low: float


def lower_limit(count: int, seeds: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower limit of a share (Clopper and Pearson 1934); 0 without seeds."""
    return float(binomtest(count, seeds, alternative="greater").proportion_ci(confidence).low) if seeds else 0.0


def decide(answers: Sequence[str], confidence: float = CONFIDENCE) -> Shares:
    """The verdict on the answers YES, NO or OPEN of all seeds, one each; a seed that diverged answers OPEN.

    Args:
      confidence: of each limit; higher where several readings share .05.

    Raises:
      ValueError: an answer is none of the three.
    """
    if strange := sorted({*answers} - {YES, NO, OPEN}):
        raise ValueError(f"a seed answers {YES}, {NO} or {OPEN}, and not {', '.join(strange)}.")
    counts, seeds = [list(answers).count(each) for each in (YES, NO, OPEN)], len(answers)
    yes_low, no_low = (lower_limit(count, seeds, confidence) for count in counts[:2])
    verdict = rules.SUPPORTED if yes_low > 0.5 else rules.REFUTED if no_low > 0.5 else rules.UNDECIDED
    return Shares(verdict if seeds >= FEWEST_SEEDS else None, *counts, seeds, yes_low, no_low)


def answer(low: float, high: float, threshold: float) -> str:
    """The answer of one seed whose interval is [low, high]: YES above the threshold, NO below, else OPEN; OPEN where
    there is no interval (nan)."""
    return YES if low > threshold else NO if high < threshold else OPEN


def seeds_to_decide(shares: Shares) -> tuple[int, int | None]:
    """(fewest, most) seeds in all that would decide: if every further seed agrees with the majority so far, and if
    the majority's share stays what it is (None: at that share no number up to MOST_SEEDS does)."""
    ahead = max(shares.yes, shares.no)
    numbers = range(max(shares.seeds, FEWEST_SEEDS), MOST_SEEDS + 1)
    decides = lambda count, seeds: lower_limit(count, seeds) > 0.5  # noqa: E731
    fewest = next(seeds for seeds in numbers if decides(ahead + seeds - shares.seeds, seeds))
    share = ahead / shares.seeds if shares.seeds else 1.0
    most = next((seeds for seeds in numbers if decides(int(share * seeds + 1e-9), seeds)), None)
    return fewest, most
