"""Attention alone, without a model, of heads that fool a careless measure.

Dimension key: N document, H head, T position.
"""

from typing import NamedTuple

import numpy as np

from tests.eval import linked_documents as text
from tests.eval.linked_documents import FIRST, Documents, Relation

VOCAB, SPACE = 24, FIRST  # the most frequent word


class Attention(NamedTuple):
    """Weights (N, H, T, T) in float64, rows of zeros beyond a document's length; H is 1."""

    weights: np.ndarray
    documents: Documents


def saturates(seed: int, num: int = 24, length: int = 32) -> Attention:
    """Exactly 1 on the latest earlier copy, or on itself where there is none: rows with exact zeros, whose entropy is
    0 and not NaN. A perfect head of duplicates."""
    return _of(_copying(seed, num, length), lambda words, at: [(_latest(words, at, at), 1.0)])


def splits_with_itself(seed: int, num: int = 24, length: int = 32) -> Attention:
    """A half on the latest earlier copy, or on itself where there is none, and a half on itself: mass .5."""
    return _of(_copying(seed, num, length), lambda words, at: [(_latest(words, at, at), 0.5), (at, 0.5)])


def falls_back(seed: int, num: int = 24, length: int = 32) -> Attention:
    """On the latest earlier copy, or on the first token where nothing matches: a perfect head of duplicates that looks
    at the first token most of the time."""
    return _of(_copying(seed, num, length), lambda words, at: [(_latest(words, at, 0), 1.0)])


def looks_at_spaces(seed: int, num: int = 24, length: int = 32) -> Attention:
    """On all spaces so far alike, whatever the query; every third token is a space, so many of them are duplicates'
    links. Bears no role."""
    rng = np.random.default_rng(seed)
    draw = lambda words: SPACE if rng.random() < 1 / 3 else int(rng.integers(SPACE + 1, VOCAB))  # noqa: E731
    documents = _untold(rng, draw, text.copies, num, length)

    def spaces(words, at):
        found = [key for key in range(at + 1) if words[key] == SPACE] or [0]
        return [(key, 1 / len(found)) for key in found]

    return _of(documents, spaces)


def offset_on_repeats(seed: int, num: int = 24, length: int = 32, period: int = 8) -> Attention:
    """On the token `period` - 1 before, where all repeats stand at that period: mass 1 on induction's links, all of
    which its offset explains. No induction head."""
    rng = np.random.default_rng(seed)

    def draw(words):
        return words[-period] if len(words) > period else int(rng.choice(_new(words)))

    documents = _untold(rng, draw, text.followers, num, length)
    return _of(documents, lambda words, at: [(max(at - period + 1, 0), 1.0)])


def _new(words: list[int]) -> list[int]:
    return sorted(set(range(FIRST, VOCAB)) - set(words))


def _copying(seed: int, num: int, length: int) -> Documents:
    """Documents in which a third of the words copy an earlier one, of lengths that differ."""
    rng = np.random.default_rng(seed)

    def draw(words):
        return int(rng.choice(words[1:] if len(words) > 1 and rng.random() < 1 / 3 else np.arange(FIRST, VOCAB)))

    return _untold(rng, draw, text.copies, num, length, ragged=True)


def _untold(rng, draw, keys, num: int, length: int, ragged: bool = False) -> Documents:
    return text.write(rng, Relation(draw, keys, np.full(VOCAB, -1)), num, length, ragged)


def _latest(words: list[int], at: int, otherwise: int) -> int:
    """Where the latest earlier copy of the word at `at` stands, or `otherwise`."""
    return max(text.copies(words[: at + 1]), default=otherwise)


def _of(documents: Documents, row) -> Attention:
    """`row` gives keys and their weights, which add up, from a document's words and a query."""
    num, length = documents.tokens.shape
    weights = np.zeros((num, 1, length, length))
    for document, size in enumerate(documents.lengths):
        words = documents.tokens[document, :size].tolist()
        for query in range(size):
            for key, weight in row(words, query):
                weights[document, 0, query, key] += weight
    return Attention(weights, documents)
