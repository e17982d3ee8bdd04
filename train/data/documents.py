"""From data.source to documents: read, cut where files are few, deduplicate, sample, split by hash; files are
UTF-8 text, local or in a bucket."""

import glob
import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from train.config import DataConfig, InputError, in_a_line, refuse
from train.data import docs, tfds_text

SPLITS = ("train", "tune", "test")
SOURCES = "docs, file:PATH-or-glob, tfds:NAME, conllu:PATH-or-glob, relations, walk"
# With fewer records than this a split would have one or two of them: they are cut into blocks, and flagged.
FEW_RECORDS = 30
BLOCK_BYTES = 4_096
# Fewer training windows than this are no training set.
TRAIN_WINDOWS = 8


class Document(NamedTuple):
    name: str
    text: bytes  # UTF-8
    digest: bytes  # sha256 of the text


def read(config: DataConfig) -> tuple[dict[str, list[Document]], str]:
    """The documents of each split, and what a document is: 'document' (a record of the source) or 'block' of one.

    A source of at least FEW_RECORDS records (files, examples, modules) gives one document a record; of fewer, each is
    cut at line ends into contiguous blocks of about BLOCK_BYTES. Empty documents and exact repetitions are dropped. Of
    a source beyond config.max_bytes a sample is taken in hash order.

    Raises:
      InputError: the source is unknown, unreadable or too short.
    """
    count, records = _records(config.source)
    documents, size = [], 0
    for document in _distinct(records):
        documents.append(document)
        size += len(document.text)
        if count >= FEW_RECORDS and size >= (config.max_bytes or math.inf):
            break
    if len(documents) >= FEW_RECORDS:
        return _splits(documents, config, "document"), "document"
    return of_cut([block for document in documents for block in _blocks(document)], config, "block"), "block"


def of_cut(records: list[tuple[str, bytes]], config: DataConfig, unit: str) -> dict[str, list[Document]]:
    """The documents of each split of `records` that are cut already; those with labels must stay so.

    Raises:
      InputError: they are too short.
    """
    return _splits(sorted(_distinct(records), key=lambda document: document.digest[8:]), config, unit)


def beside(
    records: list[tuple[str, bytes]], trained_on: list[Document], config: DataConfig
) -> dict[str, list[Document]]:
    """The documents of tune and test of `records`, the text of data.labelled, which nobody trains on: in hash order,
    shared out as data.tune_fraction and data.test_fraction are to each other. Those of `trained_on` are left out.

    Raises:
      InputError: there are fewer than two.
    """
    known = {document.digest for document in trained_on}
    ranked = sorted(_distinct(records), key=lambda document: _hash(document, config.split_seed))
    ranked = [document for document in ranked if document.digest not in known]
    refuse(
        len(ranked) < 2
        and f"data.labelled={config.labelled} has {len(ranked)} document{'s' * (len(ranked) != 1)} that data.source "
        "does not train on, and tune and test need one each; give it more text."
    )
    share = config.test_fraction / (config.tune_fraction + config.test_fraction)
    last = sum(_share(_hash(document, config.split_seed)) < share for document in ranked)
    last = min(max(1, last), len(ranked) - 1)
    return {"tune": ranked[last:], "test": ranked[:last]}


def split(documents: list[Document], config: DataConfig) -> dict[str, list[Document]]:
    """Documents by split, each in hash order; tune and test get one document at least while there are any.

    A document's place follows from its own text alone, so it stays where it is when others come or go, when the order
    of the source changes and when files are moved or renamed. Another config.split_seed hashes anew.
    """
    ranked = sorted((_hash(document, config.split_seed), document) for document in documents)
    shares, ranked = [_share(digest) for digest, _ in ranked], [document for _, document in ranked]
    last_test = max(1, sum(share < config.test_fraction for share in shares))
    last_tune = max(last_test + 1, sum(share < config.test_fraction + config.tune_fraction for share in shares))
    return {"train": ranked[last_tune:], "tune": ranked[last_test:last_tune], "test": ranked[:last_test]}


def _hash(document: Document, seed: int) -> bytes:
    return hashlib.sha256(seed.to_bytes(8) + document.digest).digest() if seed else document.digest


def _share(digest: bytes) -> float:
    """Uniform in 0 ... 1."""
    return int.from_bytes(digest[:8]) / 2**64


def _records(source: str) -> tuple[float, Iterable[tuple[str, bytes]]]:
    kind, _, name = source.partition(":")
    if source == "docs":
        return math.inf, docs.records()
    if kind == "file":
        return files(source)
    if kind == "tfds":
        return tfds_text.records(name)
    raise InputError(f"data.source={source!r} is not known; the sources are {SOURCES}.")


def _distinct(records: Iterable[tuple[str, bytes]]) -> Iterator[Document]:
    seen = set()
    for name, text in records:
        digest = hashlib.sha256(text).digest()
        if text.strip() and digest not in seen:
            seen.add(digest)
            yield Document(name, text, digest)


def _blocks(document: Document) -> Iterator[tuple[str, bytes]]:
    """Contiguous blocks of BLOCK_BYTES, less up to half of it for a line end, else a space, else a whole character."""
    text, first = document.text, 0
    while first + BLOCK_BYTES + BLOCK_BYTES // 2 < len(text):  # else the rest is one block: no stump at the end
        middle, last = first + BLOCK_BYTES // 2, first + BLOCK_BYTES
        last = text.rfind(b"\n", middle, last) + 1 or text.rfind(b" ", middle, last) + 1 or last
        while text[last] & 0xC0 == 0x80:  # inside a UTF-8 character
            last -= 1
        yield f"{document.name}@{first}", text[first:last]
        first = last
    yield f"{document.name}@{first}", text[first:]


def _splits(documents: list[Document], config: DataConfig, unit: str) -> dict[str, list[Document]]:
    """The first documents whose texts fit config.max_bytes together, by split, if each is long enough to be of use."""
    ends = itertools.accumulate(len(document.text) for document in documents)
    limit = config.max_bytes or math.inf
    splits = split([document for document, end in zip(documents, ends, strict=True) if end <= limit], config)
    window = config.seq_len + 1
    needed = {"train": TRAIN_WINDOWS * window, "tune": window, "test": window}
    sizes = {name: sum(len(document.text) for document in splits[name]) for name in SPLITS}
    short = [name for name in SPLITS if sizes[name] < needed[name]]
    shares = {"tune": config.tune_fraction, "test": config.test_fraction}
    shares["train"] = 1 - sum(shares.values())
    fewest = len(SPLITS) * BLOCK_BYTES if unit == "block" else 0
    enough = max(fewest, *(math.ceil(needed[name] / shares[name]) for name in SPLITS))
    have = "; ".join(
        f"{name} has {sizes[name]:,} bytes in {len(splits[name])} {unit}s and needs {needed[name]:,}" for name in short
    )
    refuse(
        short
        and f"data.source={config.source} gives too little text for data.seq_len={config.seq_len}: of "
        f"{sum(sizes.values()):,} bytes, {have}. Give it about {max(enough, 2 * sum(needed.values())):,} bytes or more "
        f"(data.max_bytes={config.max_bytes:,}; 0 = all there is), or lower data.seq_len."
    )
    return splits


def files(source: str) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """How many files `source`, KIND:PATH-or-glob, names, and (name, content) of each, read when its turn comes, in
    hash order of the names.

    A name is the path below the folder that all the files share, so the same files elsewhere have the same names.

    Raises:
      InputError: nothing matches, a folder, an empty list of files, or a file that cannot be read or is not text.
    """
    paths = _bucket_paths(source) if "://" in source else _local_paths(source)
    refuse(not paths and f"No file matches {source}; check the pattern (** goes through folders).")
    shared = os.path.commonpath([str(path.parent) for path in paths])
    named = [(os.path.relpath(str(path), shared), path) for path in paths]
    named.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    return len(named), ((name, _content(path)) for name, path in named)


def _local_paths(source: str) -> list[Path]:
    kind, _, pattern = source.partition(":")
    path = Path(pattern).expanduser()
    files = f"{kind}:{path}/*.{'txt' if kind == 'file' else kind}"
    refuse(
        not pattern and f"{source} names no file; give a path or a glob, such as {kind}:texts/*.txt.",
        path.is_dir() and f"{path} is a folder, not a text file; name its files with a glob: {files}.",
        not (path.exists() or glob.has_magic(pattern))
        and f"The text file {path} does not exist (looked from {Path.cwd()}); check the path.",
    )
    if path.exists():
        return [path.absolute()]
    return [Path(name).absolute() for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]


def _bucket_paths(source: str) -> list:
    from etils import epath  # slow to import, and only buckets need it

    pattern = source.partition(":")[2]
    folder, _, name = pattern.rpartition("/")
    refuse(
        glob.has_magic(folder)
        and f"{source} has a wildcard in its folder; in a bucket only the file name may have one."
    )
    try:
        if not glob.has_magic(name):
            return [path for path in [epath.Path(pattern)] if path.exists()]
        return [path for path in epath.Path(folder).glob(name) if not path.is_dir()]
    except Exception as error:
        raise InputError(
            f"{source} cannot be listed ({type(error).__name__}: {in_a_line(error)[:200]}); check the address and that "
            "the bucket's file system is installed (pip install gcsfs for gs://), or copy the files here."
        ) from error


def _content(path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The text file {path} cannot be read: {in_a_line(error)[:200]}.") from error
    try:
        content.decode("utf-8")
        bad, what = content.find(b"\0"), "a zero byte"
    except UnicodeDecodeError as error:
        bad = error.start
        what = f"0x{content[bad]:02x}, which is not UTF-8"
    refuse(
        not content and f"The text file {path} is empty; leave it out or give it text.",
        bad >= 0
        and f"{path} is not UTF-8 text: byte {bad:,} of {len(content):,} is {what}; convert it "
        "(iconv -t UTF-8) or leave it out.",
    )
    return content
