"""Are heads of a layer distinct? The share of the variance of their profiles that lies between heads, split-half.

Dimension key: P feature of a profile, L layer, H head, F file.
"""

from typing import NamedTuple

import numpy as np

from eval.heads.roles.sums import Sums

RESAMPLES = 200


class Share(NamedTuple):
    """A share with its 95 % interval; nan where there is nothing to compare."""

    share: float
    low: float
    high: float


def features(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """What a profile is made of, sums (P, L, H, F) over counts (P, F): the attention at the near offsets, on the keys
    of each relation, and what `profile.MEASURES` lists."""
    near = [*sums.near_OLHF, *sums.profile.values()]
    values = np.stack([*near, *sums.mass_RLHF])
    counts = np.stack([*[sums.tokens_F] * len(near), *sums.queries_RF])
    kept = counts.sum(axis=1) > 0
    return values[kept], counts[kept]


def share(values_PLHF: np.ndarray, counts_PF: np.ndarray, seed: int = 0) -> Share:
    """The share of variance between the heads of a layer, of profiles that are seen on half of the files each: the
    covariance of the two halves over their variance, both summed over features that are scaled alike; 1 if a head's
    profile says which head it is, 0 if it is noise. Its interval is a bootstrap over files, split anew each time, about
    the share itself: halves drawn with replacement hold fewer distinct files, and agree less.

    Undefined, nan, with one head a layer or fewer than four files.
    """
    heads, files = values_PLHF.shape[2:]
    if heads < 2 or files < 4:
        return Share(*[float("nan")] * 3)
    draw = np.random.default_rng(seed)
    found = [_of_halves(values_PLHF, counts_PF, draw.permutation(files)) for _ in range(RESAMPLES)]
    resampled = [_of_halves(values_PLHF, counts_PF, _resampled(draw, files)) for _ in range(RESAMPLES)]
    middle = float(np.nanmean(found))
    low, high = middle + np.nanquantile(resampled, [0.025, 0.975]) - np.nanmean(resampled)
    return Share(middle, float(low), min(1.0, float(high)))


def _resampled(draw: np.random.Generator, files: int) -> np.ndarray:
    """Files drawn with replacement; no file is in both halves, which would look like agreement."""
    halves = np.array_split(draw.permutation(files), 2)
    return np.concatenate([draw.choice(half, len(half)) for half in halves])


def _of_halves(values_PLHF: np.ndarray, counts_PF: np.ndarray, order: np.ndarray) -> float:
    both = []
    for half in np.array_split(order, 2):
        count_P = counts_PF[:, half].sum(axis=1)
        mean_PLH = values_PLHF[..., half].sum(axis=3) / np.maximum(count_P, 1)[:, None, None]
        both.append(mean_PLH - mean_PLH.mean(axis=2, keepdims=True))
    spread_P = np.sqrt(np.mean([np.mean(half**2, axis=(1, 2)) for half in both], axis=0))
    first, second = (half / np.maximum(spread_P, 1e-12)[:, None, None] for half in both)
    return float(np.sum(first * second) / max(0.5 * np.sum(first**2 + second**2), 1e-12))
