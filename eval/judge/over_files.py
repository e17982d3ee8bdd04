"""One model's mean per token over source files, with Student's t: what new files would give of the same model.

The mean is a ratio of two sums over files, and enters by its linearisation (Cochran 1977, section 2.11).
"""

from typing import NamedTuple

import numpy as np
import scipy.special


class OverFiles(NamedTuple):
    """Means (...,) with their standard errors; `freedom` degrees, one less than files."""

    mean: np.ndarray
    error: np.ndarray
    freedom: int

    def low(self, alpha: float) -> np.ndarray:
        """One-sided lower limits: each is above the truth with probability alpha."""
        return self.mean - self._quantile(alpha) * self.error

    def high(self, alpha: float) -> np.ndarray:
        """One-sided upper limits."""
        return self.mean + self._quantile(alpha) * self.error

    def p_below(self, threshold: float) -> np.ndarray:
        """One-sided p values against a truth of at least `threshold`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.nan_to_num((self.mean - threshold) / self.error, nan=0.0, posinf=np.inf, neginf=-np.inf)
        return scipy.special.stdtr(self.freedom, t)

    def _quantile(self, alpha: float) -> float:
        return float(-scipy.special.stdtrit(self.freedom, alpha))


def per_token(sums: np.ndarray, tokens: np.ndarray) -> OverFiles:
    """The mean of sums (..., m) over files, a token.

    Args:
      tokens: (m,) of each file, at least two.
    """
    return relative(sums + np.asarray(tokens, float), tokens)


def relative(sums: np.ndarray, base: np.ndarray) -> OverFiles:
    """The sum of `sums` (..., m) over files relative to that of `base` (m,) or (..., m), less 1."""
    sums, base = np.asarray(sums, float), np.asarray(base, float)
    files, whole = sums.shape[-1], base.sum(axis=-1)
    ratio = sums.sum(axis=-1) / whole
    deviations = sums - ratio[..., None] * base
    error = np.sqrt(files / (files - 1) * np.sum(deviations**2, axis=-1)) / whole
    return OverFiles(ratio - 1, error, files - 1)
