"""What a verdict needs beside its interval: families of tests, the set of best cells, and what n seeds can decide."""

import bisect
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.stats

from eval.judge.intervals import Variances

POWER = 0.8
MOST_SEEDS = 100_000  # beyond, 'seeds to decide' is given up
CONFIDENCE_OF_PLAN = 0.8  # of the standard deviation that 'seeds to decide' plans with
DRAWS = 2048  # of the mean squares, which power is averaged over


def rejected(p_values: Sequence[float], alpha: float, method: str) -> np.ndarray:
    """Which of a family of hypotheses are rejected: `holm` (1979) bounds the chance of one false rejection by alpha,
    `fdr_bh` (Benjamini and Hochberg 1995) the expected share of false ones."""
    from statsmodels.stats.multitest import multipletests  # takes most of a second to import

    return multipletests(p_values, alpha, method)[0] if len(p_values) else np.zeros(0, bool)


def best_set(losses: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Which cells may have the lowest mean loss: a set that holds the true best with `confidence`.

    Hsu's multiple comparison with the best (1984, Theorem 2.1; the set is Gupta's of 1965), seeds as blocks: a cell is
    out if its mean exceeds the lowest of the others by more than d s sqrt(2 / n), with s^2 the residual mean square of
    the cells x seeds table and d the one-sided critical value of Dunnett (1955) at correlation 1/2.

    Args:
      losses: (k cells, n seeds).

    Returns:
      bool (k,); all true where there are fewer than two cells or seeds.
    """
    cells, seeds = losses.shape
    if min(cells, seeds) < 2:
        return np.ones(cells, bool)
    means = losses.mean(axis=1)
    residual = losses - means[:, None] - losses.mean(axis=0) + losses.mean()
    freedom = (cells - 1) * (seeds - 1)
    reach = dunnett_one_sided(cells - 1, freedom, confidence) * math.sqrt(2 * np.sum(residual**2) / freedom / seeds)
    others = np.array([np.delete(means, cell).min() for cell in range(cells)])
    return means - others <= reach


@functools.lru_cache(maxsize=256)
def dunnett_one_sided(comparisons: int, freedom: int, confidence: float = 0.95) -> float:
    """The d with P(max T_i <= d) = confidence for `comparisons` Student t of correlation 1/2 and one common variance.

    With Z, S independent, S^2 chi-squared over its freedom: P = E[Phi(Z + sqrt(2) d S)^comparisons] (Dunnett 1955).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    shares = (np.arange(400) + 0.5) / 400
    spreads = np.sqrt(scipy.stats.chi2.ppf(shares, freedom) / freedom)

    def probability(d: float) -> float:
        inside = scipy.stats.norm.cdf(nodes + math.sqrt(2) * d * spreads[:, None]) ** comparisons
        return float(np.mean(inside @ weights) / np.sum(weights))

    return scipy.optimize.brentq(lambda d: probability(d) - confidence, 0, 1e4)


def equivalence_power(spread: float, margin: float, seeds: int, alpha: float = 0.05) -> float:
    """The chance that two one-sided t tests at alpha (Schuirmann 1987) find |mean| < margin where the truth is 0.

    Args:
      spread: standard deviation of the paired difference between seeds, in the unit of margin.
    """
    if seeds < 2:
        return 0.0
    shares = (np.arange(2000) + 0.5) / 2000
    estimates = spread * np.sqrt(scipy.stats.chi2.ppf(shares, seeds - 1) / (seeds - 1))
    room = margin - scipy.stats.t.ppf(1 - alpha, seeds - 1) * estimates / math.sqrt(seeds)
    return float(np.mean(np.where(room > 0, 2 * scipy.stats.norm.cdf(room * math.sqrt(seeds) / spread) - 1, 0)))


def largest_spread(margin: float, seeds: int, alpha: float = 0.05, power: float = POWER) -> float:
    """The standard deviation of the paired difference at which equivalence within `margin` still has that power."""
    if seeds < 2:
        return 0.0
    surplus = lambda ratio: equivalence_power(ratio, 1, seeds, alpha) - power  # noqa: E731
    return margin * scipy.optimize.brentq(surplus, 1e-3, 1e3)


def largest_error(margin: float, alpha: float = 0.05, power: float = POWER) -> float:
    """The standard error that the mean may have, known, for equivalence within `margin` to keep that power."""
    return margin / float(scipy.stats.norm.ppf(1 - alpha) + scipy.stats.norm.ppf((1 + power) / 2))


def difference_power(margin: float, spread: Variances, seeds: int, alpha: float = 0.05) -> float:
    """The chance that eval.judge.rules calls a difference as large as `margin` supported.

    The mean is normal and the three mean squares chi-squared about their expectations, independent of it and of each
    other; averaged over them, the interval (eval.judge.intervals.new_documents) must lie above 0 and reach the margin.

    Args:
      alpha: 1 - the interval's confidence.
    """
    if seeds < 2:
        return 0.0
    error = math.sqrt(spread.of_seed / seeds + spread.of_documents)
    if not error:
        return 1.0
    rest = min(spread.of_rest, spread.of_seed) / seeds
    means = spread.of_seed / seeds, spread.of_documents + rest, rest
    freedoms = seeds - 1, spread.documents - 1, (seeds - 1) * (spread.documents - 1)
    of_seed, of_document, of_rest = (
        mean * scipy.stats.chi2.ppf(share, freedom) / freedom
        for mean, share, freedom in zip(means, _shares().T, freedoms, strict=True)
    )
    quantiles = [scipy.stats.t.ppf(1 - alpha / 2, freedom) for freedom in freedoms[:2]]
    critical = (of_seed * quantiles[0] + of_document * quantiles[1]) / (of_seed + of_document)
    half = critical * np.sqrt(np.maximum(of_seed + of_document - of_rest, np.maximum(of_seed, of_document)))
    least = np.maximum(half, margin - half)  # of the mean, for support
    return float(np.mean(scipy.stats.norm.sf((least - margin) / error)))


@functools.cache
def _shares() -> np.ndarray:
    """(DRAWS, 3) points that fill the unit cube evenly."""
    from scipy.stats import qmc

    return qmc.Halton(3, scramble=False).random(DRAWS + 1)[1:]  # the first is the origin


def seeds_to_decide(spread: Variances, seeds: int, margin: float, alpha: float = 0.05) -> tuple[int, int] | None:
    """(fewest, most) seeds with which a difference of `margin` is found with POWER, or None: no number of seeds does.

    The plan is for the margin and not for the effect just seen, whose use would flatter it (Hoenig and Heisey 2001).
    The range is that of the variance between seeds, its chi-squared interval at CONFIDENCE_OF_PLAN.

    Args:
      spread: as estimated from `seeds` seeds, at least two.
    """
    if difference_power(margin, spread._replace(of_seed=0.0), MOST_SEEDS, alpha) < POWER:
        return None
    tails = np.array([1 + CONFIDENCE_OF_PLAN, 1 - CONFIDENCE_OF_PLAN]) / 2
    variances = (seeds - 1) / scipy.stats.chi2.ppf(tails, seeds - 1) * spread.of_seed
    return tuple(_fewest_seeds(margin, spread._replace(of_seed=each), alpha) for each in variances)


def _fewest_seeds(margin: float, spread: Variances, alpha: float) -> int:
    enough = lambda seeds: difference_power(margin, spread, seeds, alpha) >= POWER  # noqa: E731
    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_SEEDS:
            return MOST_SEEDS
    return high // 2 + 1 + bisect.bisect_left(range(high // 2 + 1, high), True, key=enough)


def sign_agreement(values: np.ndarray) -> tuple[int, float]:
    """How many of `values` (n,) have the sign of their mean, and the p value of the two-sided sign test.

    With fewer than six seeds even full agreement is no evidence at 5 %: 2 / 2^5 = .06.
    """
    agree = int(np.sum(np.sign(values) == np.sign(np.mean(values))))
    return agree, float(scipy.stats.binomtest(agree, len(values)).pvalue)
