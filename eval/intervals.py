"""Two intervals of a paired difference: over seeds on these documents, and over seeds and documents both.

Every seed meets the same documents, so the two are crossed factors of one table of differences (n seeds, m documents).
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

# With fewer effective documents a comparison is about these documents: so few hardly stand for others of their kind.
# tests/eval/test_calibration.py reports how often the intervals hold the truth.
ENOUGH_DOCUMENTS = 20


class Interval(NamedTuple):
    """A mean with its interval; `low` and `high` are nan where there is too little to give one."""

    mean: float
    low: float
    high: float
    freedom: float  # degrees of freedom


def effective_documents(tokens: np.ndarray) -> float:
    """1 / sum of squared shares: how many documents of equal length weigh as much (Kish 1965, section 11.7)."""
    shares = np.asarray(tokens, float) / np.sum(tokens)
    return float(1 / np.sum(shares**2))


def over_seeds(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of `values`, one a seed: (n,)."""
    variance = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else math.nan
    return _interval(float(np.mean(values)), variance, len(values) - 1, confidence)


def these_documents(sums: np.ndarray, tokens: np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's t over seeds of the difference pooled over tokens: what new seeds would give on the same documents.

    Args:
      sums: (n, m) difference in nats of each seed on each document, summed over its tokens.
      tokens: (m,) tokens of each document.
    """
    return over_seeds(np.sum(sums, axis=1) / np.sum(tokens), confidence)


def new_documents(sums: np.ndarray, tokens: np.ndarray, confidence: float = 0.95) -> Interval:
    """The interval over seeds and documents, both random: what new seeds would give on new documents of this kind.

    With the mean squares of the two-way table, the variance of the mean is (MS_seed + MS_doc - MS_residual) / (n m),
    the estimator of a mean under crossed random effects (Searle, Casella and McCulloch 1992, section 4.3); it is held
    at or above each single factor's MS / (n m). Degrees of freedom are Satterthwaite's (1946), at least min(n, m) - 1.
    The pooled mean is a ratio of two sums over documents, and enters by its linearisation (Cochran 1977, section 2.11).

    Args:
      sums: (n, m) difference in nats of each seed on each document, summed over its tokens.
      tokens: (m,) tokens of each document.
    """
    seeds, documents = sums.shape
    mean = float(np.sum(sums) / (seeds * np.sum(tokens)))
    if min(seeds, documents) < 2:
        return Interval(mean, math.nan, math.nan, 0)
    freedoms = np.array([seeds - 1, documents - 1, (seeds - 1) * (documents - 1)])
    ms = _mean_squares(sums, tokens)
    combined = max(ms[0] + ms[1] - ms[2], ms[0], ms[1])
    spread = np.sum(ms**2 / freedoms)
    freedom = max(combined**2 / spread if spread > 0 else 0, min(seeds, documents) - 1)
    return _interval(mean, combined / (seeds * documents), freedom, confidence)


def _mean_squares(sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Mean squares of seeds, documents and residual of the linearised two-way table."""
    seeds, documents = sums.shape
    mean = np.sum(sums) / (seeds * np.sum(tokens))
    table = documents * (sums - mean * tokens) / np.sum(tokens)  # its row means are the seeds' deviations
    of_seed, of_document = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = table - of_seed - of_document + table.mean()
    squares = [
        documents * np.sum((of_seed - table.mean()) ** 2),
        seeds * np.sum((of_document - table.mean()) ** 2),
        np.sum(residual**2),
    ]
    return np.array(squares) / [seeds - 1, documents - 1, (seeds - 1) * (documents - 1)]


def _interval(mean: float, variance: float, freedom: float, confidence: float) -> Interval:
    if not freedom > 0:
        return Interval(mean, math.nan, math.nan, 0)
    half = math.sqrt(variance) * scipy.stats.t.ppf((1 + confidence) / 2, freedom)
    return Interval(mean, float(mean - half), float(mean + half), float(freedom))


def within(interval_of, sums: np.ndarray, tokens: np.ndarray, margin: float) -> bool:
    """Equivalence by two one-sided tests at 5 % (Schuirmann 1987): the 90 % interval lies inside +-margin."""
    found = interval_of(sums, tokens, 0.90)
    return bool(-margin < found.low and found.high < margin)


def p_of_so_low(found: Interval, confidence: float = 0.95) -> float:
    """One-sided p value: the chance of a mean so low where the truth is 0, from an interval at `confidence`; 1 where
    there is no interval."""
    if math.isnan(found.low):
        return 1.0
    error = (found.high - found.low) / 2 / scipy.stats.t.ppf((1 + confidence) / 2, found.freedom)
    if not error:
        return float(found.mean >= 0)
    return float(scipy.stats.t.cdf(found.mean / error, found.freedom))


def variance_of_documents(sums: np.ndarray, tokens: np.ndarray) -> float:
    """Variance of the pooled mean, in (nats/token)^2, that the choice of documents leaves however many seeds there are:
    (MS_doc - MS_residual) / (n m), not below 0. Arguments as in `new_documents`; 0 for fewer than two of either."""
    seeds, documents = sums.shape
    if min(seeds, documents) < 2:
        return 0.0
    _, of_document, residual = _mean_squares(sums, tokens)
    return max(of_document - residual, 0.0) / (seeds * documents)


def bootstrap(sums: np.ndarray, tokens: np.ndarray, confidence: float = 0.95, draws: int = 4000) -> tuple:
    """(low, high): percentiles of the mean when seeds and documents are drawn with replacement, independently (the
    pigeonhole bootstrap, Owen 2007). A second opinion: it undercovers with few seeds and decides nothing."""
    seeds, documents = sums.shape
    draw = np.random.default_rng(0)
    of_seed = draw.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    of_document = draw.multinomial(documents, np.full(documents, 1 / documents), draws)
    means = np.einsum("bn,nm,bm->b", of_seed, sums, of_document, optimize=True) / (seeds * (of_document @ tokens))
    tails = (1 - confidence) / 2
    return tuple(float(value) for value in np.quantile(means, [tails, 1 - tails]))
