"""Text that only induction foretells: each document walks a permutation of its own, so what follows a symbol is what
followed its earlier copies, at gaps that vary with the permutation's cycles.

    <s> d k a p d k a p d k c m m m m c ...

The first symbol is uniform. Each next one is permutation(current) with probability 1 - noise, else uniform over all of
them. There are no questions and no floor: the exact prediction is a sum over all permutations that fit the prefix.
"""

import dataclasses
import functools

import numpy as np

from train.data.relations.language import BOS, Documents, Links, Questions, Vocabulary

SYMBOLS = "abcdefghijklmnop"


@dataclasses.dataclass(frozen=True)
class Walk:
    """A language (train.data.relations.language). No check is made here; train.data.relations.parse makes them.

    Its links, of query q to every key p <= q that there is: `induction`, the token before p is that of q (p is the
    follower of an earlier copy, q itself where a symbol follows itself); `duplicate`, p < q has the token of q.
    """

    noise: float
    length: int

    relations = ("induction", "duplicate")
    sources = {"induction": ("symbol",), "duplicate": ("symbol",)}

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of({"bos": ["<s>"], "symbol": list(SYMBOLS)}, {}, np.zeros((0, 0), np.int8))

    def sample(self, draw: np.random.Generator, count: int) -> Documents:
        size, each = len(SYMBOLS), np.arange(count)
        permutations = draw.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
        uniform = draw.integers(0, size, (count, self.length - 1))
        strays = draw.random((count, self.length - 1)) < self.noise
        tokens = np.full((count, self.length), BOS, np.uint16)
        symbol = uniform[:, 0]
        tokens[:, 1] = 1 + symbol
        for place in range(1, self.length - 1):
            symbol = np.where(strays[:, place], uniform[:, place], permutations[each, symbol])
            tokens[:, 1 + place] = 1 + symbol
        no_questions = Questions(*[np.zeros(0, np.int32)] * 4, np.zeros(0))
        return Documents(tokens, np.zeros((count, 0)), _links(tokens), no_questions)


def _links(tokens: np.ndarray) -> Links:
    """Of documents (N, T), by document, query, relation and key."""
    found = []
    for number, own in enumerate(tokens):
        copies = np.tril(own[:, None] == own, -1)  # (query, key)
        followers = np.pad(copies[:, :-1], ((0, 0), (1, 0)))
        query, relation, key = np.nonzero(np.stack([followers, copies], axis=1))
        found.append(np.stack([np.full(len(query), number), query, key, relation]).astype(np.int32))
    return Links(*np.concatenate(found, axis=1))
