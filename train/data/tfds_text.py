"""The source `tfds:NAME`: text of tensorflow-datasets, read and prepared without TensorFlow; imports tfds lazily. Gold
trees (`tfds:universal_dependencies/...`) are written back as CoNLL-U, so that train.data.conllu_text reads them as it
reads files.

A data set keeps the rows of a sentence without their numbers, and sentences without their order and documents. Rows
with a head are words, numbered through; one without a head is an empty node, which has a part of speech, or the surface
form of the words after it, a contraction. Sentences whose `sent_id` differs in its last number alone are a document, in
the order of these numbers.
"""

import ast
import contextlib
import difflib
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from train.config import InputError, in_a_line, refuse

READ_AHEAD = 256  # examples; one at a time takes three times as long
# Of what goes wrong tensorflow-datasets logs a line of its own, and raises it as well.
logging.getLogger("absl").addFilter(lambda record: "tensorflow_datasets" not in record.pathname)
BRING_FILES = "bring the text as --config.data.source=file:PATH-or-glob"
REACH_SECONDS = 6  # a server that has not answered by then is taken as out of reach
TREES = "universal_dependencies"
FIELDS = ("tokens", "lemmas", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
MOST_PARTS = 6  # words of a contraction


def records(name: str) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """How many examples NAME has, and (split/index, text) of each in a fixed random order.

    All of the data set's own splits count as one source. An example's text is the feature `text`, or else the only
    feature of type Text.

    Raises:
      InputError: an unknown name, a data set that is not prepared and cannot be downloaded or needs TensorFlow for it,
        one in another format than array_record, or one without a text feature.
    """
    builder = builder_of(name)
    feature, sources = _text_feature(builder, name), sources_of(builder, name)
    splits = sorted(sources)
    ends = np.cumsum([len(sources[split]) for split in splits])

    def texts() -> Iterator[tuple[str, bytes]]:
        order = np.random.default_rng(0).permutation(ends[-1])
        for chunk in np.split(order, range(READ_AHEAD, len(order), READ_AHEAD)):
            which = np.searchsorted(ends, chunk, side="right")
            for number, split in enumerate(splits):
                places = (chunk[which == number] - ends[number] + len(sources[split])).tolist()
                for place, example in zip(places, sources[split].__getitems__(places), strict=True):
                    text = example[feature]
                    yield f"{split}/{place}", text.encode() if isinstance(text, str) else bytes(text)

    return int(ends[-1]), texts()


def sources_of(builder, name: str) -> dict:
    """Each split of a data set, prepared first where it can be, as a random-access source.

    Raises:
      InputError: it is not prepared and cannot be, or in another format than array_record.
    """
    if not builder.is_prepared():
        builder = _prepared(name)
    try:
        return builder.as_data_source()
    except (NotImplementedError, ValueError) as error:
        why = f"tfds:{name} is prepared in {builder.data_path}, but not as array_record"
        raise InputError(f"{why}; {_elsewhere(name)}") from error


def builder_of(name: str):
    """The builder of a data set, prepared or not.

    Raises:
      InputError: an unknown name, or a builder that needs TensorFlow for a data set that is not prepared.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name)
    except tfds.core.DatasetNotFoundError as error:
        base = name.partition("/")[0].partition(":")[0]
        near = ", ".join(difflib.get_close_matches(base, tfds.list_builders(with_community_datasets=False), n=3))
        why = (
            f"tensorflow-datasets knows no data set {name!r}" + f" (nearest: {near})" * bool(near) + ", and none is "
            f"prepared in {tfds.core.constants.DATA_DIR}; check the name, or {BRING_FILES}."
        )
        if any(Path(tfds.__file__).parent.glob(f"*/{base}.py")):
            why = f"tfds:{name} is not prepared here, and its builder needs TensorFlow; {_elsewhere(name)}"
        raise InputError(why) from error
    except Exception as error:  # a malformed name, an unknown config or version
        why = f"tfds:{name} cannot be opened ({in_a_line(error)[:200]}); check the name, or {BRING_FILES}."
        raise InputError(why) from error


def _prepared(name: str):
    """The builder, after download and preparation as array_record, where it can do without TensorFlow."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    refuse(
        isinstance(builder, tfds.core.BeamBasedBuilder)
        and f"tfds:{name} is not prepared here, and its builder needs Apache Beam; {_elsewhere(name)}"
    )
    # The downloader's own retries take minutes before they give up.
    silent = ", ".join(_out_of_reach(list(builder.url_infos or ())))
    refuse(
        silent
        and f"tfds:{name} is not prepared in {tfds.core.constants.DATA_DIR} and cannot be downloaded: no answer "
        f"from {silent}; {BRING_FILES}; or {_elsewhere(name)}"
    )
    try:
        builder.download_and_prepare()
        return builder
    except ImportError as error:
        why = f"cannot be prepared here: its builder needs {error.name or 'TensorFlow'}"
        raise InputError(f"tfds:{name} {why}; {_elsewhere(name)}") from error
    except Exception as error:
        why = f"could not be downloaded and prepared ({in_a_line(error)[:200]}); {BRING_FILES}; or"
        raise InputError(f"tfds:{name} {why} {_elsewhere(name)}") from error


def _out_of_reach(urls: list[str]) -> list[str]:
    """The hosts of `urls` that give no answer, or a server's fault, within REACH_SECONDS."""
    import requests

    hosts, answered = {urlsplit(url).netloc: url for url in urls if url.startswith("http")}, set()

    def ask(host: str) -> None:
        with contextlib.suppress(requests.RequestException):
            if requests.head(hosts[host], timeout=REACH_SECONDS).status_code < 500:  # the downloader retries those
                answered.add(host)

    # Daemons: the look-up of a name may hang for longer than any time-out that one can set.
    askers = [threading.Thread(target=ask, args=(host,), daemon=True) for host in hosts]
    end = time.monotonic() + REACH_SECONDS
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(max(0.0, end - time.monotonic()))
    return sorted(set(hosts) - answered)


def _text_feature(builder, name: str) -> str:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    refuse(
        "text" not in texts
        and len(texts) != 1
        and f"tfds:{name} has no feature `text` and {len(texts)} features of type Text ({', '.join(texts) or 'none'}), "
        "so which one to read is not clear; write the text into files and use --config.data.source=file:PATH-or-glob."
    )
    return "text" if "text" in texts else texts[0]


def _elsewhere(name: str) -> str:
    return (
        "prepare it once on a machine with TensorFlow and a network: pip install tensorflow tensorflow-datasets "
        f"apache-beam && tfds build {name} --file_format=array_record --data_dir=DIR; then copy DIR here and set "
        "TFDS_DATA_DIR=DIR."
    )


def trees(name: str) -> Iterator[tuple[str, str]]:
    """(split, CoNLL-U text of all its sentences) of each of the data set's own splits.

    Raises:
      InputError: as `records`.
    """
    builder = builder_of(name)
    parts = builder.info.features["upos"].feature.names
    for split, source in sorted(sources_of(builder, name).items()):
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
