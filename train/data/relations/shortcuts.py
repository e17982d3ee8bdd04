"""The shortcut table: how far rules come that need no relation, on each question of a language.

A rule sees something of the text before the answer, and says what share of the answers had the bit set where it saw
the same; the shares are counted on one half of the documents and judged on the other. Only loss below the best rule is
due to the relation.
"""

from typing import NamedTuple

import numpy as np

from train.data.relations import language

TOKENS = 1_000_000
WINDOW = 16  # tokens before a question that a rule may look at singly
SPANS = (4, 8, WINDOW, None)  # tokens that a bag is taken from; None: all of the document
SMOOTHING = 0.5  # added to each count
# A rule that looks where a link points more often than ALWAYS, and is this close to the floor (nats), is the relation.
ALWAYS, CLOSE = 0.999, 0.1


class Shortcut(NamedTuple):
    """A rule on the questions of a relation.

    Attributes:
      loss: nats a bit, on documents that it was not fitted to.
      right: share of the bits that it guesses right.
      is_relation: it looks where the gold link points, so it is no shortcut.
    """

    relation: str
    rule: str
    loss: float
    right: float
    is_relation: bool


class Relation(NamedTuple):
    """What the languages' questions of one relation have in common.

    Attributes:
      share: of all questions.
      floor: nats a bit, the mean of what was recorded.
      shortcuts: every rule.
    """

    name: str
    share: float
    floor: float
    shortcuts: tuple[Shortcut, ...]

    @property
    def best(self) -> Shortcut:
        return _best([rule for rule in self.shortcuts if not rule.is_relation])

    @property
    def best_excess(self) -> float:
        """Nats a bit above the floor that the best shortcut leaves; too high rather than too low, since the shares are
        fitted to finite text."""
        return self.best.loss - self.floor


def table(spoken: language.Language, seed: int, num_tokens: int = TOKENS) -> list[Relation]:
    """Every relation that is switched on, from the first `num_tokens` tokens of `seed`."""
    sample = language.documents(spoken, seed, 0, -(-num_tokens // spoken.length))
    return [_of_relation(spoken, sample, index) for index in range(len(spoken.relations))]


def _of_relation(spoken: language.Language, sample: language.Documents, index: int) -> Relation:
    name, vocabulary, questions = spoken.relations[index], spoken.vocabulary, sample.questions
    mine = questions.relation == index
    document, query, _, bit, log_p = (column[mine] for column in questions)
    document, query, bit = document.astype(np.int64), query.astype(np.int64), bit.astype(np.int64)
    text = sample.tokens[document].astype(np.int64)
    rows, columns = np.arange(len(document)), np.arange(spoken.length)
    truth = vocabulary.answer_bits[text[rows, query + 1], bit]
    source = (columns[None] < query[:, None]) & np.isin(vocabulary.kinds, spoken.sources[name])[text]
    linked, asks, fold = _linked(sample, index, document, query, spoken.length), text[rows, query], document % 2

    floor = float(-log_p.mean()) + 0.0 if mine.any() else 0.0  # no -0

    def rule(what: str, *seen: np.ndarray, position: np.ndarray | None = None) -> Shortcut:
        """A rule that sees the columns `seen`; where it reads a single word, at `position` (-1: nowhere)."""
        loss, right = _judged(seen, truth, fold)
        looks = position is not None and (linked[rows, position] & (position >= 0)).mean() > ALWAYS
        return Shortcut(name, what, loss, right, bool(looks and loss < floor + CLOSE))

    def word_at(what: str, offset: int) -> Shortcut:
        """The better of two rules that read the word at `offset`: with the query and without."""
        position = query - offset
        word = np.where(position >= 0, text[rows, np.maximum(position, 0)], -1)
        return _best([rule(what, word, position=position), rule(what, asks, word, position=position)])

    latest = np.where(source.any(axis=1), spoken.length - 1 - np.argmax(source[:, ::-1], axis=1), -1)
    latest_bit = np.where(latest >= 0, vocabulary.bits[text[rows, latest]], -1)
    offsets, counts = np.unique((query[:, None] - columns)[linked], return_counts=True)
    singles = [word_at("any one word", offset) for offset in range(1, WINDOW + 1)]
    rules = (
        rule("latest of the type", latest_bit, position=latest),
        _best([rule("bag of the type", *_bag(vocabulary.bits[text], source, query, columns, span)) for span in SPANS]),
        word_at("most frequent offset", int(offsets[counts.argmax()])),
        _best([single for single in singles if not single.is_relation]),
        word_at("trigram", 1),
        rule("query alone", asks),
    )
    return Relation(name, float(mine.mean()), floor, rules)


def _best(rules: list[Shortcut]) -> Shortcut:
    return min(rules, key=lambda rule: rule.loss)


def _linked(sample: language.Documents, index: int, document, query, length: int) -> np.ndarray:
    """bool (questions, T): where the links of each question point."""
    links, names = sample.links, document * length + query
    mine = links.relation == index
    row = np.searchsorted(names, links.document[mine].astype(np.int64) * length + links.query[mine])
    linked = np.zeros((len(document), length), bool)
    linked[row, links.key[mine]] = True
    return linked


def _bag(bits: np.ndarray, source: np.ndarray, query: np.ndarray, columns: np.ndarray, span: int | None) -> list:
    """How many words of the type have the bit, and have it not, among the last `span` before the question."""
    inside = source if span is None else source & (columns[None] >= query[:, None] - span)
    return [(inside & (bits == value)).sum(axis=1) for value in (0, 1)]


def _judged(seen: tuple[np.ndarray, ...], truth: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
    """(nats a bit, share guessed right) of the rule that says of each thing seen how often the bit was set."""
    what = np.zeros(len(truth), np.int64)
    for column in seen:
        what = what * (int(column.max()) + 2) + column + 1
    _, what = np.unique(what, return_inverse=True)
    kinds, losses, hits = int(what.max()) + 1, [], []
    for judged in (0, 1):
        fitted, held = fold != judged, fold == judged
        count = np.bincount(what[fitted], minlength=kinds) + 2 * SMOOTHING
        said = ((np.bincount(what[fitted], truth[fitted], kinds) + SMOOTHING) / count)[what[held]]
        losses.append(-np.log(np.where(truth[held] == 1, said, 1 - said)))
        hits.append(np.where(said == 0.5, 0.5, (said > 0.5) == truth[held]))
    return float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())
