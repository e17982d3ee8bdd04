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
QUERY_ALONE = "query alone"
MOST_COUNTED = 2**18  # different things that a rule may see, to be counted without sorting them
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

    @property
    def query_alone_excess(self) -> float:
        """The same of the best rule that sees the query alone."""
        return min(rule.loss for rule in self.shortcuts if rule.rule == QUERY_ALONE) - self.floor


def table(spoken: language.Language, seed: int, num_tokens: int = TOKENS) -> list[Relation]:
    """Every relation that is switched on, from the first `num_tokens` tokens of `seed`."""
    sample = language.documents(spoken, seed, 0, -(-num_tokens // spoken.length))
    return [_of_relation(spoken, sample, index) for index in range(len(spoken.relations))]


def _of_relation(spoken: language.Language, sample: language.Documents, index: int) -> Relation:
    name, vocabulary, length, tokens = spoken.relations[index], spoken.vocabulary, spoken.length, sample.tokens
    mine = np.flatnonzero(sample.questions.relation == index)
    floor = float(-sample.questions.log_p[mine].mean()) + 0.0 if len(mine) else 0.0  # no -0
    mine = mine[np.argsort(sample.questions.document[mine] % 2, kind="stable")]  # one half behind the other
    document, query, _, bit, _ = (column[mine].astype(np.int64) for column in sample.questions)
    half, asks = np.count_nonzero(document % 2 == 0), tokens[document, query].astype(np.int64)
    truth = vocabulary.answer_bits[tokens[document, query + 1], bit]
    source, bits = np.isin(vocabulary.kinds, spoken.sources[name])[tokens], vocabulary.bits[tokens]
    links = sample.links.relation == index
    from_document, from_query, key, _ = (column[links] for column in sample.links)
    row, linked = np.empty(tokens.shape, np.int32), np.zeros((len(mine), length), bool)  # linked: (questions, T)
    row[document, query] = rows = np.arange(len(mine))
    linked[row[from_document, from_query], key] = True

    def rule(what: str, *seen: np.ndarray, position: np.ndarray | None = None) -> Shortcut:
        """A rule that sees the columns `seen`; where it reads a single word, at `position` (-1: nowhere)."""
        loss, right = _judged(seen, truth, half)
        looks = position is not None and loss < floor + CLOSE and (linked[rows, position] & (position >= 0)).mean()
        return Shortcut(name, what, loss, right, bool(looks > ALWAYS))

    def word_at(what: str, offset: int) -> Shortcut:
        """The better of two rules that read the word at `offset`: with the query and without."""
        position = query - offset
        word = np.where(position >= 0, tokens[document, np.maximum(position, 0)].astype(np.int64), -1)
        return _best([rule(what, word, position=position), rule(what, asks, word, position=position)])

    def bag(span: int | None) -> Shortcut:
        """How many words of the type have the bit, and have it not, among the last `span` before the question."""
        first = np.zeros_like(query) if span is None else np.maximum(query - span, 0)
        return rule("bag of the type", *(of[document, query] - of[document, first] for of in before))

    # Of each place of a document how many words of the type with each bit stand before it, and where the last does.
    before = [np.pad(np.cumsum(source & (bits == value), axis=1), ((0, 0), (1, 0))) for value in (0, 1)]
    latest = np.maximum.accumulate(np.where(source, np.arange(length), -1), axis=1)[document, query - 1]
    latest_bit = np.where(latest >= 0, bits[document, latest], -1).astype(np.int64)
    offsets, counts = np.unique(from_query - key, return_counts=True)
    singles = [word_at("any one word", offset) for offset in range(1, WINDOW + 1)]
    rules = (
        rule("latest of the type", latest_bit, position=latest),
        _best([bag(span) for span in SPANS]),
        word_at("most frequent offset", int(offsets[counts.argmax()])),
        _best([single for single in singles if not single.is_relation]),
        word_at("trigram", 1),
        rule(QUERY_ALONE, asks),
    )
    return Relation(name, float((sample.questions.relation == index).mean()), floor, rules)


def _best(rules: list[Shortcut]) -> Shortcut:
    return min(rules, key=lambda rule: rule.loss)


def _judged(seen: tuple[np.ndarray, ...], truth: np.ndarray, half: int) -> tuple[float, float]:
    """(nats a bit, share guessed right) of the rule that says of each thing seen how often the bit was set in the other
    half; the first `half` questions are one of them."""
    what = np.zeros(len(truth), np.int64)
    for column in seen:
        what = what * (int(column.max()) + 2) + column + 1
    if what.max() > MOST_COUNTED:
        _, what = np.unique(what, return_inverse=True)
    losses, hits, halves, kinds = [], [], (slice(half), slice(half, None)), int(what.max()) + 1
    for held, fitted in (halves, halves[::-1]):
        count = np.bincount(what[fitted], minlength=kinds) + 2 * SMOOTHING
        said = (np.bincount(what[fitted], truth[fitted], kinds) + SMOOTHING) / count  # of each thing seen
        losses.append(-np.log([1 - said, said])[truth[held], what[held]])
        guess = np.where(said == 0.5, 0.5, said > 0.5)[what[held]]
        hits.append(np.where(truth[held], guess, 1 - guess))
    return float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())
