"""Evaluation windows: the tokens of documents cut to what a model sees at once."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class EvalWindows:
    """Windows that count each token of each document once; targets of window w are tokens[w, 1:]."""

    tokens: np.ndarray  # uint16 (windows, seq_len + 1), zero beyond the document's end
    length: np.ndarray  # int32 (windows,): inputs, and targets, that are there
    first: np.ndarray  # int32 (windows,): the targets first <= t < last count; those before are context only
    last: np.ndarray  # int32 (windows,)
    document: np.ndarray  # int32 (windows,): index into Corpus.names
    begin: np.ndarray  # int32 (windows,): place of the window's first token in its document

    def locate(self, document: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The window that counts the target after `position` of `document`, -1 where none does: the last token of a
        document, which has no target, and documents of other splits."""
        span = int(max(position.max(initial=0), (self.begin + self.length).max(initial=0))) + 1
        counted = self.document.astype(np.int64) * span + self.begin + self.first
        window = np.searchsorted(counted, document.astype(np.int64) * span + position, side="right") - 1
        place = position - self.begin[window]
        inside = (self.document[window] == document) & (place >= self.first[window]) & (place < self.last[window])
        return np.where(inside & (window >= 0), window, -1)
