"""What every language has: a vocabulary, documents, gold links; a relations language the exact probabilities too.

A document begins with BOS. In a relations language every choice is drawn with a probability that the visible prefix
determines, and its logarithm is recorded beside the token; so the mean of what was recorded is the loss of the best
possible model.
"""

import dataclasses
import hashlib
from typing import NamedTuple, Protocol

import numpy as np

BOS = 0
MOST_WORDS = 2**16  # a token is a uint16
BLOCK = 1024  # documents drawn at once: block b of a seed depends on (seed, b) alone


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a language of V words, by token id.

    Attributes:
      words: how each is printed.
      kinds: what each is, such as 'filler', 'query' or 'answer'.
      bits: int8 (V,), the bit that a word of the text carries, -1 where it carries none.
      answer_bits: int8 (V, B), the bits of an answer, -1 for every other word and for bits that it has not.
    """

    words: tuple[str, ...]
    kinds: np.ndarray
    bits: np.ndarray
    answer_bits: np.ndarray

    @classmethod
    def of(cls, by_kind: dict[str, list[str]], bits: dict[str, np.ndarray], answer_bits: np.ndarray) -> "Vocabulary":
        """The words kind by kind; `bits` of the kinds that carry one, `answer_bits` of the kind 'answer' alone."""
        kinds = np.repeat(list(by_kind), [len(words) for words in by_kind.values()])
        own, of_answers = (np.full(shape, -1, np.int8) for shape in (len(kinds), (len(kinds), answer_bits.shape[1])))
        for kind, values in bits.items():
            own[kinds == kind] = values
        of_answers[kinds == "answer"] = answer_bits
        return cls(tuple(word for words in by_kind.values() for word in words), kinds, own, of_answers)

    @property
    def first(self) -> dict[str, int]:
        """The first word of each kind."""
        return {kind: int(np.argmax(self.kinds == kind)) for kind in dict.fromkeys(self.kinds.tolist())}

    def __len__(self) -> int:
        return len(self.words)


class Links(NamedTuple):
    """Gold links, one a row: to predict the token after `query` by `relation`, look at `key` (positions in a document,
    int32). Where a question has several, all say the same (semantic) or all are needed (local)."""

    document: np.ndarray
    query: np.ndarray
    key: np.ndarray
    relation: np.ndarray  # index into Language.relations


class Questions(NamedTuple):
    """Bits of answers that a relation decides, one a row: the answer stands after `query`, its bit `bit` follows
    `relation`, and `log_p` is that bit's recorded log-probability in nats."""

    document: np.ndarray
    query: np.ndarray
    relation: np.ndarray
    bit: np.ndarray  # column of Vocabulary.answer_bits
    log_p: np.ndarray


class Documents(NamedTuple):
    """N documents of T tokens."""

    tokens: np.ndarray  # uint16 (N, T)
    log_p: np.ndarray  # float64 (N, T): log p(token | the tokens before it), 0 for BOS; (N, 0) where it is not known
    links: Links
    questions: Questions


class Language(Protocol):
    """A family with all its dials set; the families are dose.Dose, kinds.Kinds and parse.Mixed,
    and walk.Walk, which asks no questions."""

    vocabulary: Vocabulary
    relations: tuple[str, ...]  # names of those that are switched on
    length: int  # tokens of a document
    sources: dict[str, tuple[str, ...]]  # relation -> kinds of the words that could be its source

    def sample(self, draw: np.random.Generator, count: int) -> Documents:
        """`count` documents."""


def block(language: Language, seed: int, index: int) -> Documents:
    """Block `index` of the documents of `seed`: BLOCK documents, always the same."""
    return language.sample(np.random.default_rng([seed, index]), BLOCK)


def documents(language: Language, seed: int, first: int, last: int, number: int = 0) -> Documents:
    """Documents `first` <= i < `last` of `seed`; to links and questions the first is document `number`."""
    blocks = []
    for index in range(first // BLOCK, max(-(-last // BLOCK), first // BLOCK + 1)):
        begin = index * BLOCK
        rows = slice(max(first - begin, 0), min(last - begin, BLOCK))
        part, names = block(language, seed, index), np.full(BLOCK, -1)
        names[rows] = number + begin - first + np.arange(BLOCK)[rows]
        blocks.append(renumbered(part, names)._replace(tokens=part.tokens[rows], log_p=part.log_p[rows]))
    return joined(blocks)


def joined(parts: list[Documents]) -> Documents:
    """Parts whose links and questions are numbered through already."""
    tokens, log_p, links, questions = zip(*parts, strict=True)
    links, questions = (list(map(np.concatenate, zip(*tables, strict=True))) for tables in (links, questions))
    return Documents(np.concatenate(tokens), np.concatenate(log_p), Links(*links), Questions(*questions))


def renumbered(part: Documents, documents: np.ndarray) -> Documents:
    """`part` whose links and questions name document d documents[d]; those of one renamed -1 are left out."""

    def renamed(table):
        kept = documents[table.document] >= 0
        return type(table)(documents[table.document[kept]].astype(np.int32), *(column[kept] for column in table[1:]))

    return part._replace(links=renamed(part.links), questions=renamed(part.questions))


def fingerprint(language: Language, seed: int) -> str:
    """sha256 over the words, the relations and the first block: other dials, another seed or code that draws otherwise
    give another one."""
    first = block(language, seed, 0)
    digest = hashlib.sha256(repr((language.vocabulary.words, language.relations, language.length)).encode())
    for array in (first.tokens, first.log_p, *first.links, *first.questions):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
