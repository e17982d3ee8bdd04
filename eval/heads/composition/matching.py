"""How far heads of different runs do the same: attention patterns on the same prompts, by index and matched.

Heads of a layer are matched on half of the prompts and scored on the other half, either way round, since a matching
that is scored where it was found agrees in noise alone (r = .30, .41, .52, .69 at 4, 8, 16, 64 heads). A head that
writes nothing, as after pruning, is left out of both.

Dimension key: M run, H head, N head of any run (M H), E entry of a pattern, P prompt.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment


class Agreement(NamedTuple):
    """Of two runs' heads in one layer.

    Attributes:
      by_index: mean correlation of heads with the same number; nan without such a pair.
      matched: of matched heads, scored on the prompts that they were not matched on.
      left_out: heads of either run that write nothing.
    """

    by_index: float
    matched: float
    left_out: int


class Correlations:
    """Correlations of N heads, those of all runs, added up over prompts; two halves of the prompts apart."""

    def __init__(self, heads: int):
        self._count = np.zeros(2)
        self._sums, self._products = np.zeros((2, heads)), np.zeros((2, heads, heads))

    def add(self, half: int, patterns_NE: np.ndarray) -> None:
        """Takes the patterns of some prompts of a half, 0 or 1."""
        self._count[half] += patterns_NE.shape[1]
        self._sums[half] += patterns_NE.sum(axis=1, dtype=np.float64)
        self._products[half] += patterns_NE @ patterns_NE.T

    def correlations(self) -> np.ndarray:
        """(2, N, N), of each half; 0 with a head whose pattern never varies."""
        means = self._sums / self._count[:, None]
        covariance = self._products / self._count[:, None, None] - means[:, :, None] * means[:, None]
        spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
        scale = spread[:, :, None] * spread[:, None]
        return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12).clip(-1, 1)


def agreement(r: np.ndarray, alive: Iterable[np.ndarray]) -> Agreement:
    """Of two runs in one layer.

    Args:
      r: (2, H, H), correlations of the first run's heads with the second's on each half of the prompts.
      alive: bool (H,) of the first and of the second: which heads write anything.
    """
    first, second = alive
    both = np.diagonal(r, axis1=1, axis2=2)[:, first & second]
    kept = r[:, first][:, :, second]
    scored = [kept[1 - half][linear_sum_assignment(kept[half], maximize=True)] for half in (0, 1)]
    mean = lambda values: float(np.mean(values)) if np.size(values) else float("nan")  # noqa: E731
    return Agreement(mean(both), mean(scored), int((~first).sum() + (~second).sum()))
