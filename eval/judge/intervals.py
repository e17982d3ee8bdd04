"""Two intervals of a paired difference: over seeds on these documents, and over seeds and documents both.

Every seed meets the same documents, so the two are crossed factors of one table of differences (n seeds, m documents).
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

# With fewer effective documents a comparison is about these documents: so few hardly stand for others of their kind.
# tests/eval/test_calibration.py reports how often the intervals hold the truth.
ENOUGH_DOCUMENTS = 20


class Interval(NamedTuple):
    """A mean with its interval; `low` and `high` are nan where there is too little to give one."""

    mean: float
    low: float
    high: float
    error: float = math.nan  # standard error of the mean
    parts: tuple[tuple[float, int], ...] = ()  # (weight, degrees of freedom) whose t quantiles the critical value mixes


def effective_documents(tokens: np.ndarray) -> float:
    """1 / sum of squared shares: how many documents of equal length weigh as much (Kish 1965, section 11.7)."""
    shares = np.asarray(tokens, float) / np.sum(tokens)
    return float(1 / np.sum(shares**2))


def over_seeds(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of `values`, one a seed: (n,)."""
    variance = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else math.nan
    return _interval(float(np.mean(values)), variance, ((1.0, len(values) - 1),), confidence)


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
    at or above each single factor's MS / (n m). The critical value is Cochran's (1964) for a sum of two mean squares,
    (MS_seed t(n - 1) + MS_doc t(m - 1)) / (MS_seed + MS_doc): with Satterthwaite's (1946) degrees of freedom three
    seeds exceed the nominal error rate by half where seeds vary most (tests/eval/test_rules.py). The pooled
    mean is a ratio of two sums over documents, and enters by its linearisation (Cochran 1977, section 2.11).

    Args:
      sums: (n, m) difference in nats of each seed on each document, summed over its tokens.
      tokens: (m,) tokens of each document.
    """
    seeds, documents = sums.shape
    mean = float(np.sum(sums) / (seeds * np.sum(tokens)))
    if min(seeds, documents) < 2:
        return Interval(mean, math.nan, math.nan)
    ms = _mean_squares(sums, tokens)
    combined = max(ms[0] + ms[1] - ms[2], ms[0], ms[1])
    of_seeds = float(ms[0] / (ms[0] + ms[1])) if combined > 0 else 1.0
    parts = ((of_seeds, seeds - 1), (1 - of_seeds, documents - 1))
    return _interval(mean, combined / (seeds * documents), parts, confidence)


def _mean_squares(sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Mean squares of seeds, documents and residual of the linearised two-way table."""
    seeds, documents = sums.shape
    mean = np.sum(sums) / (seeds * np.sum(tokens))
    table = documents * (sums - mean * tokens) / np.sum(tokens)  # its row means are the seeds' deviations
    whole, of_seed, of_document = table.mean(), table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    parts = (documents, of_seed - whole), (seeds, of_document - whole), (1, table - of_seed - of_document + whole)
    squares = np.array([count * np.sum(deviations**2) for count, deviations in parts])
    return squares / [seeds - 1, documents - 1, (seeds - 1) * (documents - 1)]


def _interval(mean: float, variance: float, parts: tuple, confidence: float) -> Interval:
    if any(freedom < 1 for _, freedom in parts):
        return Interval(mean, math.nan, math.nan)
    error = math.sqrt(variance)
    half = error * _critical(parts, (1 + confidence) / 2)
    return Interval(mean, float(mean - half), float(mean + half), error, parts)


def _critical(parts: tuple, share: float) -> float:
    return float(sum(weight * scipy.special.stdtrit(freedom, share) for weight, freedom in parts))


def within(interval_of, sums: np.ndarray, tokens: np.ndarray, margin: float, alpha: float = 0.05) -> bool:
    """Equivalence by two one-sided tests at alpha (Schuirmann 1987): the interval at 1 - 2 alpha is inside +-margin."""
    interval = interval_of(sums, tokens, 1 - 2 * alpha)
    return bool(-margin < interval.low and interval.high < margin)


def p_of_so_low(found: Interval) -> float:
    """One-sided p value: the chance of a mean so low where the truth is 0, the smallest alpha at which the interval at
    1 - 2 alpha lies below 0; 1 where there is no interval."""
    if math.isnan(found.low):
        return 1.0
    if not found.error:
        return float(found.mean >= 0)
    surplus = lambda share: _critical(found.parts, share) + found.mean / found.error  # noqa: E731
    least, most = 1e-12, 1 - 1e-12
    if surplus(most) < 0:
        return least
    return 1.0 - float(scipy.optimize.brentq(surplus, least, most)) if surplus(least) < 0 else 1.0


class Variances(NamedTuple):
    """What makes a pooled difference vary, in (nats/token)^2: its parts at n seeds are as in `new_documents`.

    Attributes:
      of_seed: variance between seeds of the difference on one set of documents, E[MS_seed] / m.
      of_documents: of the mean, left by the choice of documents however many seeds there are.
      of_rest: the share of `of_seed` that seeds and documents make together, E[MS_residual] / m.
      documents: m.
    """

    of_seed: float
    of_documents: float = 0.0
    of_rest: float = 0.0
    documents: int = 2  # immaterial where documents add nothing


def variances(sums: np.ndarray, tokens: np.ndarray) -> Variances:
    """Estimates from at least two seeds and two documents; arguments as in `new_documents`."""
    seeds, documents = sums.shape
    of_seed, of_document, rest = _mean_squares(sums, tokens)
    alone = max(of_document - rest, 0.0) / (seeds * documents)
    return Variances(of_seed / documents, alone, rest / documents, documents)


def bootstrap(sums: np.ndarray, tokens: np.ndarray, confidence: float = 0.95, draws: int = 4000) -> tuple:
    """(low, high): percentiles of the mean when seeds and documents are drawn with replacement, independently (the
    pigeonhole bootstrap, Owen 2007). A second opinion: it undercovers with few seeds and decides nothing."""
    seeds, documents = sums.shape
    draw = np.random.default_rng(0)
    of_seed, of_document = (draw.multinomial(count, np.full(count, 1 / count), draws) for count in sums.shape)
    means = np.einsum("bn,nm,bm->b", of_seed, sums, of_document, optimize=True) / (seeds * (of_document @ tokens))
    tails = (1 - confidence) / 2
    return tuple(float(value) for value in np.quantile(means, [tails, 1 - tails]))
