"""The sources `file:PATH-or-glob` and `conllu:PATH-or-glob`: UTF-8 text files, local or in a bucket."""

import glob
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from train.config import InputError, in_a_line, refuse


def records(source: str) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """How many files data.source, KIND:PATH-or-glob, names, and (name, content) of each, read when its turn comes, in
    hash order of the names.

    A name is the path below the folder that all the files share, so the same files elsewhere have the same names.

    Raises:
      InputError: nothing matches, a folder, an empty list of files, or a file that cannot be read or is not text.
    """
    paths = _bucket_paths(source) if "://" in source else _local_paths(source)
    refuse(not paths and f"No file matches {source}; check data.source (** goes through folders).")
    shared = os.path.commonpath([str(path.parent) for path in paths])
    named = [(os.path.relpath(str(path), shared), path) for path in paths]
    named.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    return len(named), ((name, _read(path)) for name, path in named)


def _local_paths(source: str) -> list[Path]:
    kind, _, pattern = source.partition(":")
    path = Path(pattern).expanduser()
    files = f"{kind}:{path}/*.{'txt' if kind == 'file' else kind}"
    refuse(
        not pattern and f"data.source={kind}: names no file; give a path or a glob, such as {kind}:texts/*.txt.",
        path.is_dir() and f"{path} is a folder, not a text file; name its files with a glob: {files}.",
        not (path.exists() or glob.has_magic(pattern))
        and f"The text file {path} does not exist (looked from {Path.cwd()}); check data.source.",
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


def _read(path) -> bytes:
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
        not content and f"The text file {path} is empty; leave it out of data.source or give it text.",
        bad >= 0
        and f"{path} is not UTF-8 text: byte {bad:,} of {len(content):,} is {what}; convert it "
        "(iconv -t UTF-8) or leave it out of data.source.",
    )
    return content
