"""Families P and K in one language: each document is of one of them, each as likely.

The words of the two are distinct but for BOS, so the first word tells which one it is.
"""

import dataclasses
import functools

import numpy as np

from train.data.relations.dose import Dose
from train.data.relations.kinds import Kinds
from train.data.relations.language import Documents, Vocabulary, joined, renumbered


@dataclasses.dataclass(frozen=True)
class Mixed:
    dose: Dose
    kinds: Kinds

    length = property(lambda self: self.dose.length)
    relations = property(lambda self: (*self.dose.relations, *self.kinds.relations))

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The kinds of word of family K have a K in front."""
        of_kinds = {name: tuple(f"K {kind}" for kind in kinds) for name, kinds in self.kinds.sources.items()}
        return self.dose.sources | of_kinds

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        ours, theirs = self.dose.vocabulary, self.kinds.vocabulary
        answer_bits = np.full((len(theirs) - 1, self.dose.num_bits), -1, np.int8)
        answer_bits[:, :1] = theirs.answer_bits[1:]
        return Vocabulary(
            ours.words + tuple(f"K{word}" for word in theirs.words[1:]),
            np.concatenate([ours.kinds, [f"K {kind}" for kind in theirs.kinds[1:]]]),
            np.concatenate([ours.bits, theirs.bits[1:]]),
            np.concatenate([ours.answer_bits, answer_bits]),
        )

    def sample(self, draw: np.random.Generator, count: int) -> Documents:
        of_kinds = draw.integers(0, 2, count) == 1
        numbers = [np.flatnonzero(~of_kinds), np.flatnonzero(of_kinds)]
        ours, theirs = self.dose.sample(draw, len(numbers[0])), self.kinds.sample(draw, len(numbers[1]))
        words, relations = np.uint16(len(self.dose.vocabulary) - 1), np.int32(len(self.dose.relations))
        theirs = theirs._replace(
            tokens=np.where(theirs.tokens != 0, theirs.tokens + words, theirs.tokens),
            links=theirs.links._replace(relation=theirs.links.relation + relations),
            questions=theirs.questions._replace(relation=theirs.questions.relation + relations),
        )
        both = joined([renumbered(ours, numbers[0]), renumbered(theirs, numbers[1])])
        back = np.argsort(np.concatenate(numbers))
        log_p = both.log_p[back]
        log_p[:, 1] -= np.log(2)
        return Documents(both.tokens[back], log_p, _in_order(both.links), _in_order(both.questions))


def _in_order(table):
    """`table`, Links or Questions, by document."""
    order = np.argsort(table.document, kind="stable")
    return type(table)(*(column[order] for column in table))
