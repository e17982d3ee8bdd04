"""Which runs head measurements take, and the source files that their losses are summed by."""

from collections.abc import Iterator

import jax
import numpy as np

from eval.restore import Restored
from train import grid
from train.data.corpora import Corpus
from train.data.gold import EvalWindows


def judged(restored: Restored) -> Iterator[tuple[grid.Replica, dict]]:
    """The runs of a pack that are judged, with their weights: not diverged, from drawn weights, and no runs that only
    choose a learning rate."""
    for replica, params in finished(restored):
        if not grid.chooses(replica, restored.study):
            yield replica, params


def finished(restored: Restored) -> Iterator[tuple[grid.Replica, dict]]:
    """The runs of a pack from drawn weights that did not diverge, with their weights."""
    for row, replica in enumerate(restored.pack.replicas):
        if replica.start == grid.DRAWN and int(restored.diverged_at[row]) < 0:
            yield replica, jax.tree.map(lambda leaf, row=row: leaf[row], restored.params)


def files(corpus: Corpus, split: str, windows: EvalWindows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the source files of a split, how many of their tokens `windows` count, and the number of each window's
    file: a document that is a record is a file of its own."""
    first, last = corpus.splits[split]
    names = [name if corpus.unit == "document" else name.rpartition("@")[0] for name in corpus.names[first:last]]
    known = list(dict.fromkeys(names))
    number = {name: place for place, name in enumerate(known)}
    of_document = np.array([number[name] for name in names])
    of_window = of_document[windows.document - first]
    tokens = np.bincount(of_window, windows.last - windows.first, len(known)).astype(np.int64)
    return np.array(known), tokens, of_window
