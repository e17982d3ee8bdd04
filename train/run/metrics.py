"""Lines of JSON of a cell's packs: metrics.jsonl, one a replica and logged step, and looks.jsonl, one a look."""

import contextlib
import json
import math
import pathlib
from collections.abc import Mapping

from train import files


class Log:
    """Appends to a file of such lines, after dropping what a crash left there beyond the restored step."""

    def __init__(self, path: pathlib.Path, pack: int, first: int):
        """Args:
        path: the file; created if missing.
        pack: which pack of the cell this log continues.
        first: lines of this pack from this step on, and a torn last line, are dropped.
        """
        kept = [line for line in read(path) if line["pack"] != pack or line["step"] < first]
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.lines = [line for line in kept if line["pack"] == pack]
        self._file, self._pack = open(path, "a"), pack
        self.flush, self.close = self._file.flush, self._file.close

    def write(self, replica: str, step: int, values: Mapping[str, float | Mapping[str, float]]) -> None:
        """One line; a number that is not finite is written as null, which JSON can hold."""
        line = {"pack": self._pack, "step": step, "replica": replica} | _finite(values)
        self._file.write(json.dumps(line) + "\n")
        self.lines.append(line)


def _finite(value):
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return float(value) if math.isfinite(value) else None


def read(path: pathlib.Path) -> list[dict]:
    """All whole lines of such a file; a torn one (a crash in mid-write) is left out."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines
