"""From the config's data section to a language, every check made; configs/default.py explains the fields."""

import dataclasses
import functools
import re

import numpy as np

from train.config import DataConfig, refuse
from train.data.relations import kinds
from train.data.relations.dose import Dose, active
from train.data.relations.language import MOST_WORDS, Documents, Language, Vocabulary, joined, renumbered
from train.data.relations.walk import SYMBOLS, Walk

SOURCES = ("relations", "walk")
MOST_BITS = 10  # of an answer, which has 2 ** bits words
KNOWN = ", ".join(f"{letter} ({name})" for letter, name in kinds.NAMES.items())


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Families P and K in one language: each document is of one of them, each as likely.

    The words of the two are distinct but for BOS, so the first word tells which one it is.
    """

    dose: Dose
    kinds: kinds.Kinds

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


def language(config: DataConfig) -> Language:
    """The language of `config`: walks, or family P for a number in data.relations, K for letters, mixed for both.

    Raises:
      InputError: relations that are not known, none, or more than there are bits; an offset used twice; a length too
        short for a distance; noise or distractors out of range; a vocabulary too small.
    """
    asked = _walk(config) if config.source == "walk" else _of_relations(config)
    needed = len(asked.vocabulary)
    most = max(needed, config.vocab_size)
    of = "" if config.source == "walk" else f" of data.relations={config.relations}"
    refuse(
        0 < config.vocab_size < needed
        and f"data.vocab_size={config.vocab_size} is too small: the language{of} has {needed} words; give at least "
        "that, or 0 for as many as it has.",
        most > MOST_WORDS and f"The language has {most:,} words and {MOST_WORDS:,} is the most.",
    )
    return asked


def _walk(config: DataConfig) -> Walk:
    least = len(SYMBOLS) + 2
    refuse(
        not config.noise < 1
        and f"data.noise={config.noise} must be at least 0 and below 1, where nothing follows from anything.",
        config.document_tokens < least
        and f"data.document_tokens={config.document_tokens} is too short for a walk over {len(SYMBOLS)} symbols; give "
        f"at least {least}, so that one of them comes again.",
    )
    return Walk(config.noise, config.document_tokens)


def _of_relations(config: DataConfig) -> Language:
    dose, letters = _relations(config)
    refuse(
        not 0 <= config.noise < 0.5
        and f"data.noise={config.noise} must be at least 0 and below .5, where an answer says nothing any more.",
        not 0 <= config.distractors <= 1 and f"data.distractors={config.distractors} is a probability; give 0 to 1.",
    )
    same = {name: getattr(config, name) for name in ("noise", "frame_tokens", "most_fillers")}
    lengths, families = same | {"length": config.document_tokens}, []
    if dose:
        families.append(_dose(config, dose, lengths))
    if letters:
        _check_lengths(config, kinds.DISTANCE, "the carrier of relation B", 3)
        families.append(kinds.Kinds(tuple(letter for letter in kinds.KINDS if letter in letters), **lengths))
    return Mixed(*families) if len(families) > 1 else families[0]


@functools.cache
def spoken(config: DataConfig, dose: int, seed: int) -> Language:
    """The language of one seed at a dose of a study: with `dose` relations of family P, or, where data.relations has
    letters, `dose` of these kinds, by the seed's row of a Latin square.

    Raises:
      InputError: more than there are bits, or letters beside a number, or fewer than the dose.
    """
    number, letters = _relations(config)
    if letters:
        refuse(
            (number or dose > len(letters))
            and f"dose.relations asks for {dose} of data.relations={config.relations!r}; in a study of doses name "
            f"kinds alone, at least {dose} of them, such as --config.data.relations=A,C,G, or leave it to family P."
        )
    else:
        _check_bits("dose.relations", dose, config)
    row = active(seed % rows(config), rows(config), dose) if letters else ()
    relations = ",".join(letters[index] for index in row) or str(dose)
    return language(dataclasses.replace(config, relations=relations, language_seed=seed))


def rows(config: DataConfig) -> int:
    """Rows of the Latin square of a study of doses: as many as the kinds of data.relations, or as an answer has bits.

    Raises:
      InputError: data.relations names no relations.
    """
    return len(_relations(config)[1]) or len(config.offsets)


def _relations(config: DataConfig) -> tuple[int, list[str]]:
    """The dose r (0: no family P) and the letters of family K."""
    text = config.relations
    names = [name.strip() for name in text.split(",") if name.strip()]
    numbers = [int(name) for name in names if re.fullmatch(r"\d+", name)]
    letters = [name for name in names if not re.fullmatch(r"\d+", name)]
    known = f"known: {KNOWN}, and a number from 1 to {len(config.offsets)} for the dose"
    unknown = [letter for letter in letters if letter not in kinds.KINDS]
    twice, named = sorted({name for name in names if names.count(name) > 1}), f"data.relations={text!r}"
    refuse(
        unknown and f"{named} names {unknown[0]!r}, which is no relation; {known}.",
        not (letters or any(numbers))
        and f"{named} switches no relation on; {known}, such as --config.data.relations=6.",
        (twice or len(numbers) > 1) and f"{named} names {', '.join(twice) or 'two doses'}; give each relation once.",
    )
    dose = sum(numbers)
    _check_bits(named, dose, config)
    return dose, letters


def _check_bits(what: str, dose: int, config: DataConfig) -> None:
    bits = len(config.offsets)
    refuse(
        dose > bits
        and f"{what} asks for {dose} relations and an answer has {bits} bits, one for each of data.offsets; give at "
        f"most {bits}, or more offsets."
    )


def _dose(config: DataConfig, dose: int, lengths: dict) -> Dose:
    offsets = config.offsets
    twice = sorted({offset for offset in offsets if offsets.count(offset) > 1})
    refuse(
        twice
        and f"data.offsets={offsets} uses {', '.join(map(str, twice))} twice; two relations would read one token, so "
        "give every relation an offset of its own.",
        len(offsets) > MOST_BITS
        and f"data.offsets={offsets} asks for answers of {len(offsets)} bits, 2^{len(offsets)} words; give at most "
        f"{MOST_BITS} offsets.",
    )
    _check_lengths(config, max(offsets), f"the source at offset {max(offsets)}", 2)
    on = active(config.language_seed % len(offsets), len(offsets), dose)
    return Dose(on, offsets, config.demand, config.sources == "tagged", distractors=config.distractors, **lengths)


def _check_lengths(config: DataConfig, distance: int, what: str, behind: int) -> None:
    """Raises InputError unless a frame reaches `distance` back, and a document holds a frame with `behind` tokens (the
    query and its answer) after it."""
    least = 1 + config.most_fillers + config.frame_tokens + behind
    refuse(
        config.frame_tokens < distance
        and f"data.frame_tokens={config.frame_tokens} is too short for {what}, {distance} tokens before the query; "
        f"give at least {distance}.",
        config.document_tokens < least
        and f"data.document_tokens={config.document_tokens} is too short for a frame of up to {config.most_fillers} "
        f"fillers and {config.frame_tokens} tokens with its query and answer; give at least {least}.",
    )
