"""Texts that heads are watched on, and the links in them: which earlier (or other) tokens a role would look at.

Dimension key: N text, T position.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from train.data.relations.language import Links

DUPLICATE, INDUCTION = "duplicate", "induction"
FEWEST_LINKS = 30  # queries with a link that a role is judged on


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """N texts of at most T tokens.

    Attributes:
      tokens: int (N, T + 1), the last the target of the last input; zeros behind a text's end.
      length: int (N,), inputs of each text.
      file: int (N,), the source file of each, from 0; what texts of one file say is not independent.
      links: (document, query, key, relation), `document` a row of `tokens`, `relation` an index into `relations`.
      relations: their names.
      counts: (V,), how often each token of the vocabulary occurs in the text that was trained on; None: unknown.
    """

    tokens: np.ndarray
    length: np.ndarray
    file: np.ndarray
    links: Links
    relations: tuple[str, ...] = ()
    counts: np.ndarray | None = None

    @property
    def num_files(self) -> int:
        return int(self.file.max(initial=-1)) + 1

    def linked(self, relation: int) -> Links:
        """The links of one relation."""
        return Links(*(column[self.links.relation == relation] for column in self.links))

    def some(self, most: int) -> "Texts":
        """At most `most` texts, evenly spread over all of them; the numbers of the files stay."""
        count = len(self.tokens)
        if count <= most:
            return self
        chosen = np.unique(np.linspace(0, count - 1, most).round().astype(int))
        place = np.full(count, -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.links.document] >= 0
        links = Links(*(column[kept] for column in self.links))
        links = links._replace(document=place[links.document].astype(np.int32))
        parts = {name: getattr(self, name)[chosen] for name in ("tokens", "length", "file")}
        return dataclasses.replace(self, **parts, links=links)


def of_copies(tokens_NT: np.ndarray, length_N: np.ndarray) -> Links:
    """DUPLICATE (0): every earlier copy of the query's token. INDUCTION (1): what followed such a copy, the key p with
    token[p - 1] = token[query] (Olsson et al. 2022, with the erratum: the follower). The first token, BOS, is no
    query."""
    parts = []
    for document, (tokens, length) in enumerate(zip(tokens_NT, length_N, strict=True)):
        tokens = tokens[:length]
        earlier = np.tril(tokens[:, None] == tokens[None], -1)
        earlier[0] = False
        for relation, shift in enumerate((0, 1)):
            query, key = np.nonzero(earlier)
            parts.append((np.full(len(query), document), query, key + shift, np.full(len(query), relation)))
    columns = zip(*parts, strict=True)
    return Links(*(np.concatenate(column).astype(np.int32) for column in columns))


def repeats(common: np.ndarray, count: int, length: int, bos: int, seed: int) -> Texts:
    """Random tokens of which runs return at varying gaps, so that no fixed offset finds the earlier copy; each text is
    a file of its own.

    A text is BOS and then runs of 4 to 8 tokens, each as likely new (every token of `common` alike) as a copy of what
    stands anywhere before it.

    Args:
      common: the tokens that new runs are drawn from.
      length: T.
    """
    draw = np.random.default_rng([seed, 20])
    tokens = np.zeros((count, length + 1), np.int64)
    for row in tokens:
        row[0], filled = bos, 1
        while filled <= length:
            run = int(draw.integers(4, 9))
            new = draw.choice(common, run)
            if filled > 2 * run and draw.random() < 0.5:
                begin = int(draw.integers(1, filled - run + 1))
                new = row[begin : begin + run].copy()
            row[filled : filled + run] = new[: length + 1 - filled]
            filled += run
    full = np.full(count, length, np.int32)
    links = of_copies(tokens[:, :-1], full)
    return Texts(tokens, full, np.arange(count), links, (DUPLICATE, INDUCTION))


def by_direction(links: Links, relations: tuple[str, ...], causal: bool) -> tuple[Links, tuple[str, ...]]:
    """The links of trees in both directions: `nsubj` from a word to its head, `nsubj, back` from the head to it. A
    causal model sees no later key, so of each link there one direction is left."""
    back = links._replace(query=links.key, key=links.query, relation=links.relation + np.int32(len(relations)))
    both = Links(*(np.concatenate(pair) for pair in zip(links, back, strict=True)))
    if causal:
        both = Links(*(column[both.key <= both.query] for column in both))
    return both, (*relations, *(f"{name}, back" for name in relations))


def best_offset(links: Links) -> tuple[int, float]:
    """The offset (query less key) at which most queries have a linked key, and the share of the queries that do.

    The links are of one relation; each query's keys are distinct. (0, nan) without links.
    """
    if not len(links.query):
        return 0, float("nan")
    offsets, counts = np.unique(links.query - links.key, return_counts=True)
    best = int(np.argmax(counts))
    return int(offsets[best]), float(counts[best] / num_queries(links))


def num_queries(links: Links) -> int:
    """How many distinct (document, query) the links of one relation have."""
    return len(np.unique(links.document.astype(np.int64) << 32 | links.query))


def at_offsets(seen: Texts, offsets: Sequence[int]) -> Links:
    """Links from every query but the first to the keys at `offsets` (query less key) that are there."""
    document, query = np.nonzero(np.arange(seen.tokens.shape[1] - 1) < seen.length[:, None])
    parts = []
    for offset in offsets:
        kept = (query > 0) & (query >= offset) & (query - offset < seen.length[document])
        parts.append((document[kept], query[kept], query[kept] - offset, np.zeros(kept.sum())))
    return Links(*(np.concatenate(column).astype(np.int32) for column in zip(*parts, strict=True)))
