"""metrics.jsonl of a cell: one line a replica and logged step."""

import json
import math
import pathlib

from train import files


class MetricsLog:
    """Appends to a metrics.jsonl after dropping what a crash left there beyond the restored step."""

    def __init__(self, path: pathlib.Path, pack: int, step: int):
        """Args:
        path: the file; created if missing.
        pack: which pack of the cell this log continues.
        step: the restored step; lines of this pack from here on, and a torn last line, are dropped.
        """
        kept = [line for line in read(path) if line["pack"] != pack or line["step"] < step]
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a")
        self._pack = pack

    def write(self, replica: str, step: int, values: dict[str, float]) -> None:
        """One line; a value that is not finite is written as null, which JSON can hold."""
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"pack": self._pack, "step": step, "replica": replica, **numbers}) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: pathlib.Path) -> list[dict]:
    """All whole lines of a metrics.jsonl; a torn one (a crash in mid-write) is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines
