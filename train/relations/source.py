"""A language as a random-access source, such as grain.MapDataset.source takes."""

import functools

import numpy as np

from train.relations import language
from train.relations.language import BLOCK, Documents, Language


class Source:
    """`count` documents of `seed` from number `first` on; document i is a function of (seed, first + i) alone.

    An element is a dict: `tokens` uint16 (T,), `log_p` float64 (T,), `links` int32 (n, 3) of (query, key, relation),
    `questions` int32 (m, 3) of (query, relation, bit) and `question_log_p` float64 (m,).
    """

    def __init__(self, spoken: Language, seed: int, count: int, first: int = 0):
        self._language, self._seed, self._count, self._first = spoken, seed, count, first

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self._count:
            raise IndexError(f"document {index} of a source of {self._count}")
        block, row = divmod(self._first + index, BLOCK)
        found = _block(self._language, self._seed, block)
        links, questions = (_of(table, row) for table in (found.links, found.questions))
        return {
            "tokens": found.tokens[row],
            "log_p": found.log_p[row],
            "links": np.stack(links[1:], axis=1),
            "questions": np.stack(questions[1:4], axis=1),
            "question_log_p": questions[4],
        }


def _of(table, document: int) -> list[np.ndarray]:
    """The columns of `table`, Links or Questions in the order of their documents, for one document."""
    first, last = np.searchsorted(table.document, [document, document + 1])
    return [column[first:last] for column in table]


@functools.lru_cache(maxsize=8)  # neighbours in a block, and in a shuffle of a few
def _block(spoken: Language, seed: int, index: int) -> Documents:
    return language.block(spoken, seed, index)
