"""The source `tfds:universal_dependencies/...`: gold trees of tensorflow-datasets, written back as CoNLL-U, so that
train.data.conllu_text reads them as it reads files; imports tfds lazily.

A data set keeps the rows of a sentence without their numbers, and sentences without their order and documents. Rows
with a head are words, numbered through; one without a head is an empty node, which has a part of speech, or the surface
form of the words after it, a contraction. Sentences whose `sent_id` differs in its last number alone are a document, in
the order of these numbers.
"""

import ast
import contextlib
import re
from collections.abc import Iterator

from train.data import tfds_text

NAME = "universal_dependencies"
FIELDS = ("tokens", "lemmas", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
MOST_PARTS = 6  # words of a contraction


def records(name: str) -> Iterator[tuple[str, str]]:
    """(split, CoNLL-U text of all its sentences) of each of the data set's own splits.

    Raises:
      InputError: as train.data.tfds_text.records.
    """
    builder = tfds_text.builder_of(name)
    parts = builder.info.features["upos"].feature.names
    for split, source in sorted(tfds_text.sources_of(builder, name).items()):
        yield split, _document_lines([source[place] for place in range(len(source))], parts)


def _document_lines(examples: list[dict], parts: list[str]) -> str:
    by_document: dict[str, list[tuple[int, str]]] = {}
    for example in examples:
        document, number = re.fullmatch(r"(.*?)(\d*)", _text(example["idx"]), re.DOTALL).groups()
        by_document.setdefault(document, []).append((int(number or 0), _sentence_lines(example, parts)))
    named = [(name.strip("-_. \n") or "all", sorted(sentences)) for name, sentences in sorted(by_document.items())]
    return "\n".join(f"# newdoc id = {name}\n" + "\n".join(lines for _, lines in rows) for name, rows in named)


def _sentence_lines(example: dict, parts: list[str]) -> str:
    """A sentence with its rows numbered, a blank line behind it."""
    columns = {field: [_text(value) for value in example[field]] for field in FIELDS}
    columns["upos"] = [parts[int(part)] for part in example["upos"]]
    columns["feats"] = columns["deps"] = ["_"] * len(columns["upos"])  # written as Python values; not of use here
    columns["misc"] = [_misc(written) for written in columns["misc"]]
    rows = list(zip(*columns.values(), strict=True))
    numbers = _numbers(rows, _text(example["text"]))
    shown = [["_" if value in ("", "None") else value for value in row] for row in rows]
    return "".join("\t".join([number, *row]) + "\n" for number, row in zip(numbers, shown, strict=True))


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _misc(written: str) -> str:
    """`{'SpaceAfter': 'No'}` as SpaceAfter=No; '_' for what is no dict."""
    values = {}
    with contextlib.suppress(SyntaxError, ValueError):
        values = ast.literal_eval(written)
    named = values.items() if isinstance(values, dict) else ()
    return "|".join(name if value is None else f"{name}={value}" for name, value in named) or "_"


def _numbers(rows: list[tuple[str, ...]], text: str) -> list[str]:
    """The column ID of each row: 2 of a word, 2-3 of a contraction, 2.1 of an empty node."""
    form, head, part = (FIELDS.index(name) for name in ("tokens", "head", "upos"))
    numbers, word, empty, at, covered = [], 0, 0, 0, 0
    for place, row in enumerate(rows):
        end = text.find(row[form], at) + len(row[form])
        if row[head] != "None":
            word, empty = word + 1, 0
            numbers.append(str(word))
            at = max(at, end) if word > covered else at
        elif row[part] != "_":
            empty += 1
            numbers.append(f"{word}.{empty}")
        else:
            after = [later[form] for later in rows[place + 1 :] if later[head] != "None" or later[part] == "_"]
            covered = word + _num_parts(row[form], after, text[end:].lstrip())
            numbers.append(f"{word + 1}-{covered}")
            at = max(at, end)
    return numbers


def _num_parts(form: str, after: list[str], rest: str) -> int:
    """How many of the rows `after` a contraction make it up: as many as spell it, else the fewest behind which the next
    row begins the `rest` of the text."""
    for count in range(2, MOST_PARTS + 1):
        if "".join(after[:count]) == form:
            return count
    for count in range(2, min(MOST_PARTS, len(after)) + 1):
        if rest.startswith(after[count]) if count < len(after) else not rest:
            return count
    return min(2, len(after))
