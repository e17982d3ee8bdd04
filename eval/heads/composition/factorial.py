"""Who decides: shares of init, data, their interaction and chaos in how far runs differ.

With 1 - r of two runs' agreement r as half a squared distance, runs of a crossed grid differ in the mean by

  v(data) + v(both) + v(chaos)              where they share the init alone,
  v(init) + v(both) + v(chaos)              where they share the data alone,
  v(init) + v(data) + v(both) + v(chaos)    where they share neither,
  v(chaos)                                  where one is the other from weights a millionth off,

the variance components of a two-way random model (Searle, Casella and McCulloch 1992, chapter 5), here from pairs, so
that a table with runs missing needs no other formula, and heads may be matched pair by pair. Shares are of what runs
that share neither differ by: what those agree in is the floor, and a table whose labels are permuted has shares of 0 in
the mean.

Intervals are of the two-way jackknife, an init and a data seed left out at a time, whose variances add up (McCullagh
2000, on resampling of crossed arrays: no resampling is exact, and one that lets both factors vary errs on the safe
side), t with as many degrees of freedom as the shorter side of the grid less one.

Dimension key: M run.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats

PARTS = ("init", "data", "interaction", "chaos")
MORE = "init less data"
PERMUTATIONS = 999


class Runs(NamedTuple):
    """Runs of a crossed grid, some of them twice.

    Attributes:
      init, data: int (M,), seeds.
      again: bool (M,), whether a run is another one's from weights a millionth off.
      apart: (M, M), 1 - r of each two.
    """

    init: np.ndarray
    data: np.ndarray
    again: np.ndarray
    apart: np.ndarray


class Share(NamedTuple):
    """A share with its interval; `p` of a permutation test where there is one, `null` the mean of permuted tables;
    nan where there is too little to say."""

    share: float
    low: float
    high: float
    p: float = float("nan")
    null: float = float("nan")


def means(runs: Runs) -> dict[str, float]:
    """Mean 1 - r of the pairs that share the init alone, the data alone, neither, and of runs with their own again."""
    pairs = _pairs(runs)
    return {name: float(runs.apart[chosen].mean()) if chosen.any() else float("nan") for name, chosen in pairs.items()}


def shares(runs: Runs, confidence: float = 0.95, seed: int = 0) -> dict[str, Share]:
    """Of each of PARTS, and MORE, the share of init less that of data."""
    whole = _shares(runs)
    variance, freedom = np.zeros(len(whole)), np.inf
    for label in (runs.init, runs.data):
        seeds = np.unique(label)
        left = np.array([_shares(_some(runs, label != one)) for one in seeds])
        variance += (len(seeds) - 1) / len(seeds) * np.sum((left - left.mean(axis=0)) ** 2, axis=0)
        freedom = min(freedom, len(seeds) - 1)
    half = scipy.stats.t.ppf((1 + confidence) / 2, max(freedom, 1)) * np.sqrt(variance)
    ends = zip((*PARTS, MORE), whole, whole - half, whole + half, strict=True)
    found = {name: Share(*map(float, values)) for name, *values in ends}
    for name in ("init", "data"):
        p, null = _permuted(runs, name, seed)
        found[name] = found[name]._replace(p=p, null=null)
    return found


def told_apart(more: Share) -> str:
    """Which of init and data decides more, `init` or `data`; '' where the interval of the difference holds 0 or is
    lacking."""
    return "init" if more.low > 0 else "data" if more.high < 0 else ""


def _pairs(runs: Runs) -> dict[str, np.ndarray]:
    """Which pairs of runs, each counted twice, are of each kind."""
    init, data = (label[:, None] == label for label in (runs.init, runs.data))
    first = ~runs.again[:, None] & ~runs.again
    kinds = {"init": init & ~data, "data": ~init & data, "neither": ~init & ~data}
    return {name: chosen & first for name, chosen in kinds.items()} | {
        "again": init & data & (runs.again[:, None] != runs.again)
    }


def _shares(runs: Runs) -> np.ndarray:
    mean = means(runs)
    of_init, of_data = mean["neither"] - mean["init"], mean["neither"] - mean["data"]
    rest = mean["neither"] - of_init - of_data - mean["again"]
    return np.array([of_init, of_data, rest, mean["again"], of_init - of_data]) / mean["neither"]


def _some(runs: Runs, kept: np.ndarray) -> Runs:
    return Runs(*(column[kept] for column in runs[:3]), runs.apart[np.ix_(kept, kept)])


def _permuted(runs: Runs, name: str, seed: int) -> tuple[float, float]:
    """p of the share of `name`, and its mean, where the labels of one factor are permuted within each level of the
    other."""
    runs, random = _some(runs, ~runs.again), np.random.default_rng(seed)
    label, within = (runs.init, runs.data) if name == "init" else (runs.data, runs.init)
    if min(len(np.unique(label)), len(np.unique(within))) < 2:
        return float("nan"), float("nan")
    mean = means(runs)
    levels, drawn = [np.flatnonzero(within == one) for one in np.unique(within)], []
    for _ in range(PERMUTATIONS):
        shuffled = label.copy()
        for level in levels:
            shuffled[level] = random.permutation(label[level])
        other = means(runs._replace(**{name: shuffled}))
        drawn.append((other["neither"] - other[name]) / mean["neither"])
    above = np.sum(np.array(drawn) >= (mean["neither"] - mean[name]) / mean["neither"] - 1e-12)
    return float((1 + above) / (1 + PERMUTATIONS)), float(np.nanmean(drawn))
