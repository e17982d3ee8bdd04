"""Which runs head measurements take, and the source files that their losses are summed by."""

from collections.abc import Iterator

import numpy as np

from eval.restore import Restored
from train import grid
from train.data.corpora import Corpus
from train.data.gold import EvalWindows


def judged(restored: Restored) -> Iterator[tuple[grid.Replica, dict]]:
    """The runs of a pack that are judged, with their weights: not diverged, from drawn weights, and no runs that only
    choose a learning rate."""
    for place in restored.judged:
        yield restored.pack.replicas[place], restored.params_of(place)


def finished(restored: Restored) -> Iterator[tuple[grid.Replica, dict]]:
    """The runs of a pack from drawn weights that did not diverge, with their weights."""
    for place in restored.finished:
        yield restored.pack.replicas[place], restored.params_of(place)


def files(corpus: Corpus, split: str, windows: EvalWindows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the source files of a split, how many of their tokens `windows` count, and the number of each window's
    file: a document that is a record is a file of its own."""
    first, last = corpus.splits[split]
    names = [corpus.file_of(name) for name in corpus.names[first:last]]
    known = list(dict.fromkeys(names))
    number = {name: place for place, name in enumerate(known)}
    of_document = np.array([number[name] for name in names])
    of_window = of_document[windows.document - first]
    tokens = np.bincount(of_window, windows.last - windows.first, len(known)).astype(np.int64)
    return np.array(known), tokens, of_window
