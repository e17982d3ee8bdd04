"""Linear probes of what heads write: what a head's output at a query tells of the key that the query is linked to.

A probe finds what can be read, not what is used, and later layers read second-hand what earlier ones wrote: a second
opinion on a role, and no more. Beside its accuracy stands that of a control task (Hewitt and Liang 2019): the same
probe on labels drawn at random, one for each type of query token, which it can only learn by heart.

Dimension key: N query, F feature.
"""

import warnings
from typing import NamedTuple

import numpy as np

from train.data.relations.language import Links

CLASSES = 8
MOST_STEPS = 200  # of the optimiser


class Task(NamedTuple):
    """What probes are to tell of queries (N,).

    Attributes:
      document, query: where they stand.
      token: theirs.
      label: the class, 0 ... CLASSES - 1: the rank of the linked key's token among the most frequent ones.
    """

    document: np.ndarray
    query: np.ndarray
    token: np.ndarray
    label: np.ndarray


def classes(links: Links, tokens_NT: np.ndarray) -> np.ndarray:
    """The most frequent tokens, CLASSES at most, on the linked keys of the queries of one role."""
    _, _, linked = _latest(links, tokens_NT)
    found, counts = np.unique(linked, return_counts=True)
    return found[np.argsort(-counts, kind="stable")[:CLASSES]]


def task(links: Links, tokens_NT: np.ndarray, among: np.ndarray, most: int) -> Task:
    """The queries whose linked key (the latest of several) holds a token of `among`, at most `most`, evenly spread."""
    document, query, linked = _latest(links, tokens_NT)
    kept = np.flatnonzero(np.isin(linked, among))
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))]
    label = np.argmax(linked[kept, None] == among[None], axis=1)
    return Task(document[kept], query[kept], tokens_NT[document[kept], query[kept]], label)


def _latest(links: Links, tokens_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each query once: its document, its place, and the token of its latest key."""
    order = np.lexsort((links.key, links.query, links.document))
    document, query, key = (column[order] for column in links[:3])
    last = np.append((np.diff(document) != 0) | (np.diff(query) != 0), True)[: len(document)]
    document, query, key = document[last], query[last], key[last]
    return document, query, tokens_NT[document, key]


def control_labels(fitted: Task, scored: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the control task for both: one for each type of query token, drawn as often as the true ones are."""
    types = np.union1d(fitted.token, scored.token)
    of_type = np.random.default_rng(seed).choice(fitted.label, len(types))
    return of_type[np.searchsorted(types, fitted.token)], of_type[np.searchsorted(types, scored.token)]


def chance(fitted: np.ndarray, scored: np.ndarray) -> float:
    """The accuracy of saying what is most frequent where probes are fitted."""
    return float(np.mean(scored == np.bincount(fitted).argmax()))


def accuracy(fitted_NF: np.ndarray, label_N: np.ndarray, scored_NF: np.ndarray, wanted_N: np.ndarray) -> float:
    """The share of `scored_NF` that a logistic regression, fitted to the labels of `fitted_NF` (features scaled to
    variance 1, an l2 penalty of C = 1), gets right; with one label alone, that of saying it."""
    if len(np.unique(label_N)) < 2:
        return float(np.mean(wanted_N == label_N[0]))
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean_F, spread_F = fitted_NF.mean(axis=0), fitted_NF.std(axis=0)
    scale = lambda values_NF: (values_NF - mean_F) / np.maximum(spread_F, 1e-9)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = LogisticRegression(max_iter=MOST_STEPS, tol=1e-3).fit(scale(fitted_NF), label_N)
    return float(np.mean(probe.predict(scale(scored_NF)) == wanted_N))
