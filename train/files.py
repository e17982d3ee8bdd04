"""Files that are replaced whole: a reader, or a crash, finds the old one or the new one and never a part."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

import pandas as pd


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path`, whose folder is made, once it is whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    with open(draft, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def write_text(path: pathlib.Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: pathlib.Path, value) -> None:
    write_text(path, json.dumps(value, indent=1))


def write_table(path: pathlib.Path, frame: pd.DataFrame) -> None:
    """`frame` as a .csv or .parquet."""
    with replacing(path) as file:
        if path.suffix == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file, index=False)
