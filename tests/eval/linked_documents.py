"""Documents drawn at random, each with a relation between its words: which keys a query is linked to, and the next word
told by the word that stands there.

Token 0 begins each document, token 1 hides a word of a masked model; the others are words, cut into classes where a
relation asks for classes. After a query with links comes, mostly, the word that `after` pairs with the linked one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

BEGIN, HIDDEN, FIRST = 0, 1, 2  # FIRST word


class Documents(NamedTuple):
    """Dimension key: N document, T position, V vocabulary.

    Attributes:
      tokens: int (N, T), 0 beyond a document's length.
      lengths: int (N,).
      links: int (n, 3) of (document, query, key), in order.
      targets: int (N, T), what the model is to say at each position, -1 where nothing is asked.
      counts: (V,), how frequent each token is held to be.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    links: np.ndarray
    targets: np.ndarray
    counts: np.ndarray

    @property
    def segments(self) -> np.ndarray:
        """(N, T), 1 within a document and 0 beyond."""
        return (np.arange(self.tokens.shape[1]) < self.lengths[:, None]).astype(int)

    @property
    def linked(self) -> np.ndarray:
        """bool (N, T), the queries that have a link."""
        found = np.zeros(self.tokens.shape, bool)
        found[self.links[:, 0], self.links[:, 1]] = True
        return found


@dataclasses.dataclass(frozen=True)
class Relation:
    """A text's rule.

    Attributes:
      draw: the next word that nothing tells, from the document so far.
      keys: the keys that the last word of a document is linked to.
      after: (V,) the word that follows a query linked to each word.
      told: how often it does.
      says: which position's word tells, where it is not the key's own: an offset to the key.
      never: the word of `after` never follows.
    """

    draw: Callable[[list[int]], int]
    keys: Callable[[list[int]], Sequence[int]]
    after: np.ndarray
    told: float = 0.8
    says: int = 0
    never: bool = False
    counts: np.ndarray | None = None


def write(rng: np.random.Generator, relation: Relation, num: int, length: int, ragged: bool) -> Documents:
    """`num` documents of `length` tokens each, or, if `ragged`, of between two thirds of it and all of it."""
    tokens, links = np.zeros((num, length), int), []
    lengths = rng.integers(2 * length // 3, length + 1, num) if ragged else np.full(num, length)
    for row, size in enumerate(lengths):
        words, say = [BEGIN], -1
        for at in range(size):
            if at:
                word = say if say >= FIRST and not relation.never and rng.random() < relation.told else -1
                while word < 0 or (relation.never and word == say):
                    word = relation.draw(words)
                words.append(word)
            keys = list(relation.keys(words))
            links += [(row, at, key) for key in keys]
            telling = int(rng.choice(keys)) + relation.says if keys else -1
            say = int(relation.after[words[telling]]) if telling >= 0 else -1
        tokens[row, :size] = words
    targets = np.full((num, length), -1)
    targets[:, :-1] = np.where(np.arange(1, length) < lengths[:, None], tokens[:, 1:], -1)
    counts = np.ones(len(relation.after)) if relation.counts is None else relation.counts
    return Documents(tokens, lengths, np.array(links, int).reshape(-1, 3), targets, counts)


def offset_unseen(rng: np.random.Generator, offset: int, after: np.ndarray, num: int, length: int, ragged: bool):
    """Documents of a masked model: each word is told by the one `offset` away, every sixth is hidden and asked for."""
    plain = Relation(uniform(rng, len(after)), lambda words: [], after)
    _, lengths, _, _, counts = write(rng, plain, num, length, ragged)
    tokens, targets, links = np.zeros((num, length), int), np.full((num, length), -1), []
    for row, size in enumerate(lengths):
        order = range(1, size) if offset < 0 else range(size - 1, 0, -1)
        for at in order:
            told = 1 <= at + offset < size and rng.random() < plain.told
            tokens[row, at] = after[tokens[row, at + offset]] if told else plain.draw([])
        links += [(row, at, at + offset) for at in range(size) if 0 <= at + offset < size]
        hidden = 1 + np.flatnonzero(rng.random(size - 1) < 1 / 6)
        targets[row, hidden], tokens[row, hidden] = tokens[row, hidden], HIDDEN
    return Documents(tokens, lengths, np.array(links, int).reshape(-1, 3), targets, counts)


def uniform(rng: np.random.Generator, vocab: int) -> Callable[[list[int]], int]:
    return lambda words: int(rng.integers(FIRST, vocab))


def offsets(*away: int) -> Callable[[list[int]], list[int]]:
    """The keys that stand `away` from the last word."""
    return lambda words: [len(words) - 1 + o for o in sorted(away) if len(words) - 1 + o >= 0]


def copies(words: list[int]) -> list[int]:
    """Earlier copies of the last word."""
    return [at for at, word in enumerate(words[:-1]) if word == words[-1]]


def followers(words: list[int]) -> list[int]:
    """What followed the earlier copies of the last word."""
    return [at + 1 for at in copies(words)]


def other_copies_of_the_one_before(words: list[int]) -> list[int]:
    return [at for at, word in enumerate(words) if len(words) > 1 and word == words[-2] and at != len(words) - 2]


def permuted(rng: np.random.Generator, vocab: int) -> np.ndarray:
    """(V,) a cycle through all words; token 0 and 1 stay."""
    order = FIRST + rng.permutation(vocab - FIRST)
    after = np.arange(vocab)
    after[order] = np.roll(order, -1)
    return after


def paired(sources: np.ndarray, answers: np.ndarray, vocab: int) -> np.ndarray:
    """(V,) one of `answers` for each of `sources`; the other tokens tell nothing: -1."""
    after = np.full(vocab, -1)
    after[sources] = answers[: len(sources)]
    return after


def halves(vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Words that tell, and at least as many that they can tell."""
    words = np.arange(FIRST, vocab)
    return words[: len(words) // 2], words[len(words) // 2 :]


def latest(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Callable[[list[int]], list[int]]:
    """From a word in the first class of one of `pairs`, the latest in its second."""

    def keys(words: list[int]) -> list[int]:
        found = [max(np.flatnonzero(np.isin(words, to)).tolist(), default=-1) for own, to in pairs if words[-1] in own]
        return [at for at in found if at >= 0]

    return keys
