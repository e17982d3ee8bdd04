"""The page: report/index.html."""

import pathlib

import pandas as pd

from train.workdir import Workdir


def write(workdir: Workdir, table: pd.DataFrame) -> pathlib.Path:
    """Writes the page and returns its path."""
    path = workdir.report / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.to_html())
    return path
