"""The source `tfds:universal_dependencies/...`: gold trees of tensorflow-datasets, written back as CoNLL-U, so that
train.data.conllu_text reads them as it reads files; imports tfds lazily.

A data set keeps the rows of a sentence without their numbers, and sentences without their order and documents. Rows
with a head are words, numbered through; one without a head is an empty node, which has a part of speech, or the surface
form of the words after it, a contraction. Sentences whose `sent_id` differs in its last number alone are a document, in
the order of these numbers.
"""

import ast
import re
from collections.abc import Iterator

from train.data import tfds_text

NAME = "universal_dependencies"
FIELDS = ("tokens", "lemmas", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
MOST_PARTS = 6  # words of a contraction


def is_tree(source: str) -> bool:
    """Whether data.source names such a data set."""
    return re.match(rf"tfds:{NAME}\b", source) is not None


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
    columns = [example[field] for field in FIELDS]
    rows = [[_text(value) for value in row] for row in zip(*columns, strict=True)]
    for row, part in zip(rows, example["upos"], strict=True):
        row[FIELDS.index("upos")] = parts[int(part)]
        row[FIELDS.index("feats")] = row[FIELDS.index("deps")] = "_"  # written as Python values; not of use here
        row[FIELDS.index("misc")] = _misc(row[FIELDS.index("misc")])
    numbers = _numbers(rows, _text(example["text"]))
    lines = ("\t".join([number, *map(_column, row)]) for number, row in zip(numbers, rows, strict=True))
    return "".join(f"{line}\n" for line in lines)


def _column(value: str) -> str:
    return value if value not in ("", "None") else "_"


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _misc(written: str) -> str:
    """`{'SpaceAfter': 'No'}` as SpaceAfter=No; '_' for what is no dict."""
    try:
        values = ast.literal_eval(written)
    except (SyntaxError, ValueError):
        return "_"
    if not isinstance(values, dict):
        return "_"
    return "|".join(name if value is None else f"{name}={value}" for name, value in values.items()) or "_"


def _numbers(rows: list[list[str]], text: str) -> list[str]:
    """The column ID of each row: 2 of a word, 2-3 of a contraction, 2.1 of an empty node."""
    form, head, part = (FIELDS.index(name) for name in ("tokens", "head", "upos"))
    numbers, word, empty, at, covered = [], 0, 0, 0, 0
    for place, row in enumerate(rows):
        if row[head] != "None":
            word, empty = word + 1, 0
            numbers.append(str(word))
            shown = word > covered
        elif row[part] != "_":
            empty += 1
            numbers.append(f"{word}.{empty}")
            shown = False
        else:
            after = [later for later in rows[place + 1 :] if later[head] != "None" or later[part] == "_"]
            rest = text[text.find(row[form], at) + len(row[form]) :].lstrip()
            covered = word + _num_parts(row[form], [later[form] for later in after], rest)
            numbers.append(f"{word + 1}-{covered}")
            shown = True
        if shown:
            at = max(at, text.find(row[form], at) + len(row[form]))
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
