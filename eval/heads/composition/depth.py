"""In which order of layers roles come, against an order that was written beforehand."""

import itertools

import pandas as pd

from eval.heads.roles.effects import LOCAL, PREVIOUS
from eval.heads.roles.texts import DUPLICATE, INDUCTION

ORDER = ((PREVIOUS, LOCAL), (DUPLICATE,), (INDUCTION,))  # what comes in a layer below, or in the same; then what builds
LEAST_LAYERS = 4  # of a model whose order says anything


def mean_layers(called: pd.DataFrame) -> pd.Series:
    """Of each role in ORDER the mean layer of the heads of one model that bear it, weighted by effect.

    Args:
      called: rows with `role`, `layer` and `effect`, of heads that are called by a role.
    """
    known = called[called.role.isin([role for step in ORDER for role in step])]
    weighted = (known.layer * known.effect).groupby(known.role).sum()
    return weighted / known.effect.groupby(known.role).sum()


def in_order(layers: pd.Series) -> tuple[int, int]:
    """Of the pairs of roles that ORDER sets apart, how many stand in that order, and how many there are."""
    step = {role: place for place, roles in enumerate(ORDER) for role in roles}
    pairs = [(a, b) for a, b in itertools.permutations(layers.index, 2) if step[a] < step[b]]
    return sum(bool(layers[a] < layers[b]) for a, b in pairs), len(pairs)
