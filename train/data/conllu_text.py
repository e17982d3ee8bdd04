"""The sources `conllu:PATH-or-glob` and `tfds:universal_dependencies/...`: text with gold trees (Universal
Dependencies) and, where MISC has `Entity=`, gold coreference, read by the library conllu; imports it lazily.

A document is what stands between two `# newdoc` lines, or a file without any; of few documents each is cut at sentence
ends into blocks. Its text is the surface forms with the spaces that SpaceAfter leaves, a sentence a line.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator

import numpy as np

from train.config import in_a_line, refuse
from train.data import tfds_text
from train.data.documents import BLOCK_BYTES, FEW_RECORDS, files

MOST_BAD = 0.05  # of the sentences
COREFERENCE = "coref"
_COLUMNS = 10


@dataclasses.dataclass(eq=False)
class Annotated:
    """A document with its labels.

    Attributes:
      spans: int64 (words, 2), first byte and end of each word in `text`; words of a contraction whose forms do not make
        it up share its span.
      links: (word, word, relation): a word and its head, or a mention and the one before it of the same entity, each by
        its syntactic head.
    """

    name: str
    text: bytes
    spans: np.ndarray
    links: list[tuple[int, int, str]]


@dataclasses.dataclass
class Report:
    """What was found, in numbers; `bad` are sentences that were skipped: file, line, reason."""

    sentences: int = 0
    words: int = 0
    inexact: int = 0  # words that share the span of a contraction
    cut: int = 0  # coreference links that a block's end cut
    bad: list[str] = dataclasses.field(default_factory=list)

    def notes(self) -> list[str]:
        notes = (
            f"{self.sentences:,} sentences with {self.words:,} words.",
            self.bad and f"{len(self.bad)} bad sentences were skipped: {self.first_bad()}.",
            self.inexact and f"{self.inexact:,} words stand for a part of a contraction that does not show them.",
            self.cut and f"{self.cut:,} coreference links were dropped since a block's end cuts them.",
        )
        return list(filter(None, notes))

    def first_bad(self) -> str:
        return "; ".join(self.bad[:3]) + (f"; and {len(self.bad) - 3} more" if len(self.bad) > 3 else "")


def read(source: str) -> tuple[list[Annotated], str, Report]:
    """All documents of data.source, what they are ('document' or 'block' of one), and the report.

    Raises:
      InputError: nothing matches, a file is not UTF-8 (file and offset), no sentence is there, or more than MOST_BAD of
        them are bad (file, line and reason of the first).
    """
    report = Report()
    documents = [document for record in _records(source) for document in _documents(*record, report)]
    total = report.sentences + len(report.bad)
    refuse(
        not total and f"{source} holds no sentence; check that the files are CoNLL-U.",
        len(report.bad) > MOST_BAD * total
        and f"{source} has {len(report.bad)} bad sentences of {total}, and {MOST_BAD:.0%} is the most that is "
        f"skipped: {report.first_bad()}; correct them.",
    )
    if len(documents) >= FEW_RECORDS:
        return [_annotated(*document) for document in documents], "document", report
    blocks = [_annotated(*block) for document in documents for block in _blocks(*document)]
    of_whole = sum(_num_coreference(_annotated(*document)) for document in documents)
    report.cut = of_whole - sum(map(_num_coreference, blocks))
    return blocks, "block", report


def is_source(source: str) -> bool:
    """Whether data.source names text with gold labels."""
    return re.match(rf"conllu:|tfds:{tfds_text.TREES}\b", source) is not None


def _records(source: str) -> Iterator[tuple[str, str]]:
    """(name, CoNLL-U text) of each file, or of each split of a data set."""
    kind, _, name = source.partition(":")
    if kind == "tfds":
        return tfds_text.trees(name)
    # A byte order mark would stand before the first sentence's ID.
    return ((file, content.decode("utf-8-sig")) for file, content in files(source)[1])


def _num_coreference(document: Annotated) -> int:
    return sum(relation == COREFERENCE for *_, relation in document.links)


@dataclasses.dataclass
class _Sentence:
    """A checked sentence; words count from 0 here and everywhere below."""

    text: str
    spans: list[tuple[int, int]]  # characters
    heads: list[int]  # -1: root
    relations: list[str]
    entities: list[str]  # MISC Entity of each word, '' without
    inexact: int


def _documents(file: str, content: str, report: Report) -> Iterator[tuple[str, list[_Sentence]]]:
    """(name, sentences) of the documents of a file that have any."""
    name, sentences = file, []
    for line, block in _sentence_blocks(content):
        begins = re.search(r"^# newdoc(?: id = (.*))?$", block, re.MULTILINE)
        if begins:
            if sentences:
                yield name, sentences
            name, sentences = f"{file}#{(begins[1] or f'line{line}').strip()}", []
        if not re.search(r"^[^#\s]", block, re.MULTILINE):
            continue  # comments alone
        try:
            sentences.append(_sentence(block))
            report.sentences += 1
            report.words += len(sentences[-1].heads)
            report.inexact += sentences[-1].inexact
        except _Bad as error:
            reason, below = error.args
            report.bad.append(f"{file} line {line + below}: {reason}")
    if sentences:
        yield name, sentences


def _sentence_blocks(content: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, text) of each run of lines between blank ones."""
    numbered = enumerate(content.split("\n"), 1)
    for blank, run in itertools.groupby(numbered, lambda pair: not pair[1].strip()):
        (number, first), *others = run
        if not blank:
            yield number, "\n".join([first, *(line for _, line in others)])


class _Bad(Exception):
    """A sentence that cannot be used: the reason, and how many lines below its first."""


def _sentence(block: str) -> _Sentence:
    import conllu

    rows = [(number, line) for number, line in enumerate(block.split("\n")) if not line.startswith("#")]
    for number, line in rows:
        columns = line.split("\t")
        if len(columns) != _COLUMNS:
            raise _Bad(f"{len(columns)} columns, not {_COLUMNS}", number)
        try:
            conllu.parse(line)
        except conllu.exceptions.ParseException as error:
            raise _Bad(in_a_line(error), number) from error
        if not columns[1].strip() and "." not in columns[0]:
            raise _Bad(f"word {columns[0]} has no form", number)
    (tokens,) = conllu.parse("\n".join(line for _, line in rows))
    at = [number for (number, _), token in zip(rows, tokens, strict=True) if isinstance(token["id"], int)]
    words = [token for token in tokens if isinstance(token["id"], int)]
    if not words:
        raise _Bad("no word", 0)
    for place, (word, number) in enumerate(zip(words, at, strict=True), 1):
        named = f"word {place} ({word['form']})"
        fault = (
            (word["id"] != place and f"word {word['id']} where {place} is due")
            or (word["head"] is None and f"{named} has no head")
            or (not 0 <= word["head"] <= len(words) and f"{named} has head {word['head']} of {len(words)} words")
        )
        if fault:
            raise _Bad(fault, number)
    heads = [word["head"] - 1 for word in words]
    for place, number in enumerate(at):
        if _is_on_a_cycle(heads, place):
            raise _Bad(f"word {place + 1} ({words[place]['form']}) is its own ancestor, a cycle", number)
    text, spans, inexact = _surface(tokens)
    entities = [(word["misc"] or {}).get("Entity") or "" for word in words]
    return _Sentence(text, spans, heads, [word["deprel"] or "_" for word in words], entities, inexact)


def _is_on_a_cycle(heads: list[int], word: int) -> bool:
    above = heads[word]
    for _ in heads:
        above = above if above in (-1, word) else heads[above]
    return above == word


def _surface(tokens) -> tuple[str, list[tuple[int, int]], int]:
    """The text, the characters of each word, and how many words a contraction does not show."""
    text, spans, inexact, covered = "", [], 0, 0
    for token in tokens:
        number, form = token["id"], token["form"]
        first, kind, last = number if isinstance(number, tuple) else (number, "", number)
        if kind == "." or not kind and number <= covered:
            continue  # an empty node, which the text does not show, or a part of the contraction before
        parts = [part["form"] for part in tokens if isinstance(part["id"], int) and first <= part["id"] <= last]
        if "".join(parts) == form:
            spans.extend(itertools.pairwise(itertools.accumulate(map(len, parts), initial=len(text))))
        else:
            spans.extend([(len(text), len(text) + len(form))] * len(parts))
            inexact += len(parts)
        covered = last if kind else covered
        text += form + " " * ((token["misc"] or {}).get("SpaceAfter") != "No")
    return text.rstrip(" "), spans, inexact


def _annotated(name: str, sentences: list[_Sentence]) -> Annotated:
    """The document of `sentences`: their texts a line each, all links with words counted through."""
    spans, heads, relations, size = [], [], [], 0
    for sentence in sentences:
        # Bytes before each character, for words that are not ASCII.
        bytes_before = size + np.cumsum([0, *(len(character.encode()) for character in sentence.text)])
        heads.extend(len(spans) + head if head >= 0 else -1 for head in sentence.heads)
        spans.extend((bytes_before[begin], bytes_before[end]) for begin, end in sentence.spans)
        relations.extend(sentence.relations)
        size = bytes_before[-1] + 1
    links = [(word, head, relations[word]) for word, head in enumerate(heads) if head >= 0]
    links.extend(_coreference([entity for sentence in sentences for entity in sentence.entities], heads))
    text = "\n".join(sentence.text for sentence in sentences).encode()
    return Annotated(name, text, np.array(spans, np.int64).reshape(-1, 2), links)


def _coreference(entities: list[str], heads: list[int]) -> Iterator[tuple[int, int, str]]:
    """A link from each mention to the one before of its entity, mentions by their heads."""
    by_entity: dict[str, set[int]] = {}
    for first, last, entity in _mentions(entities):
        # A mention's head is its word whose own head lies outside.
        head = next(word for word in range(first, last + 1) if not first <= heads[word] <= last)
        by_entity.setdefault(entity, set()).add(head)
    for mentions in by_entity.values():
        for before, mention in itertools.pairwise(sorted(mentions)):
            yield mention, before, COREFERENCE


def _mentions(entities: list[str]) -> Iterator[tuple[int, int, str]]:
    """(first word, last word, entity), as MISC brackets them: `(id-...` begins a mention, `id)` ends the latest of that
    id, `(id-...)` is one word."""
    opened: dict[str, list[int]] = {}
    for word, brackets in enumerate(entities):
        for begin, whole, end in re.findall(r"\(([^()]+)(\))?|([^()]+)\)", brackets):
            entity = re.split(r"[-\[]", begin or end)[0]
            if begin:
                opened.setdefault(entity, []).append(word)
            if (whole or end) and opened.get(entity):
                yield opened[entity].pop(), word, entity


def _blocks(name: str, sentences: list[_Sentence]) -> Iterable[tuple[str, list[_Sentence]]]:
    """Contiguous runs of sentences of at least BLOCK_BYTES, the last as long as what is left."""
    block, size, begin = [], 0, 0
    for sentence in sentences:
        block.append(sentence)
        size += len(sentence.text.encode()) + 1
        if size - begin >= BLOCK_BYTES:
            yield f"{name}@{begin}", block
            block, begin = [], size
    if block:
        yield f"{name}@{begin}", block
