"""Labels of words as labels of tokens: bytes or subwords."""

import numpy as np


def pieces(spans: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of each word, both included.

    Args:
      spans: int (words, 2), first byte and end of each word.
      ends: int (tokens,), the byte at which each token ends.
    """
    first = np.searchsorted(ends, spans[:, 0], side="right")
    return first, np.searchsorted(ends, spans[:, 1] - 1, side="right")


def num_shared(spans: np.ndarray, ends: np.ndarray) -> int:
    """Words of which a token also holds a part of another word, so that the label is not the word's alone; words of one
    span (parts of a contraction) count as one word."""
    own, index = np.unique(spans, axis=0, return_inverse=True)
    first, last = pieces(own, ends)
    touches = np.concatenate([[False], last[:-1] >= first[1:], [False]])
    return int((touches[:-1] | touches[1:])[index.ravel()].sum())


def links(words: list[tuple[int, int, int]], first: np.ndarray, last: np.ndarray, piece: str) -> list[tuple]:
    """(query, key, relation) of tokens for those of words; `all` gives one for every pair of their tokens."""
    if piece != "all":
        first = last = first if piece == "first" else last
    return [
        (one, other, relation)
        for query, key, relation in words
        for one in range(first[query], last[query] + 1)
        for other in range(first[key], last[key] + 1)
    ]
