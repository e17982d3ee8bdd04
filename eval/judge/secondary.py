"""Beside C4's primary cell: other demands, sources and depths under Holm's correction, and what T depends on."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from eval import doses
from eval.judge import arms, intervals, stats, steps
from eval.judge.arms import Arm
from eval.judge.intervals import Interval
from eval.judge.steps import Decision
from train.run import starts


class Corrected(NamedTuple):
    """A rule on a secondary cell.

    Attributes:
      decision: alone.
      p_value: as the rule's hypotheses give it; nan where the cell is not testable.
      holds: supported, under Holm over all secondary cells that are testable.
    """

    words: str
    decision: Decision
    p_value: float
    holds: bool


def runs(arm: Arm) -> pd.DataFrame:
    """The fresh runs that the rule reads."""
    return steps.fresh_runs(arm.doses, starts.MLP_FIRST if arms.mlp_first(arm.config) else doses.FRESH)


def corrected(cells: Iterable[Arm], rule: Callable, hypotheses: Callable, confidence: float) -> list[Corrected]:
    """A rule on each of the secondary cells that have the runs for it, as one family.

    Args:
      rule: of steps.four and a confidence.
      hypotheses: of steps.four, each (values, least): that their mean is no more than `least`. What is to be rejected
        for the rule's support, the likeliest of them.
    """
    decisions, p_values = {}, {}
    for cell in cells:
        fresh = runs(cell)
        if steps.missing(fresh):
            continue
        read = steps.four(fresh)
        decisions[cell.words] = rule(*read, confidence)
        if decisions[cell.words].why != steps.NOT_TESTABLE:
            p_values[cell.words] = max(_above(values, least) for values, least in hypotheses(*read))
    rejected = stats.rejected(list(p_values.values()), 1 - confidence, "holm")
    holds = dict(zip(p_values, rejected.tolist(), strict=True))
    return [
        Corrected(words, one, p_values.get(words, np.nan), holds.get(words, False)) for words, one in decisions.items()
    ]


def _above(values: np.ndarray, least: float) -> float:
    """Student's t: the two-sided p-value of a mean that is to lie above `least`; 1 where it lies below."""
    if np.ptp(values) == 0:
        return 0.0 if values[0] > least else 1.0
    return min(1.0, 2 * float(scipy.stats.ttest_1samp(values, least, alternative="greater").pvalue))


def slopes(tables: list[pd.DataFrame], confidence: float) -> dict[str, Interval] | None:
    """What log T of fresh runs depends on: intervals over seeds of exponents, None where too few shapes or doses have
    runs to tell them apart. Capped runs count as the cap.

    In log T = a log r + b log(heads x layers) + c, by least squares within each seed: a is `relations`, b is
    `heads_layers`, and `sum` is a + b, 0 where r / (heads x layers) alone matters.
    """
    runs = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()])
    fitted = []
    for _, mine in runs.groupby("seed") if len(runs) else ():
        columns = [np.log(mine.relations), np.log(mine.num_heads * mine.num_layers), np.ones(len(mine))]
        design = np.stack(columns, axis=1).astype(float)
        if np.linalg.matrix_rank(design) < design.shape[1]:
            return None
        fitted.append(np.linalg.lstsq(design, np.log(mine.steps.to_numpy(float)), rcond=None)[0][:2])
    if len(fitted) < 2:
        return None
    relations, heads_layers = np.array(fitted).T
    found = {"relations": relations, "heads_layers": heads_layers, "sum": relations + heads_layers}
    return {name: intervals.over_seeds(values, confidence) for name, values in found.items()}
