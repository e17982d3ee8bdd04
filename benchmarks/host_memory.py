"""The largest memory that processes and their descendants take together, read while they run (Linux alone)."""

import pathlib
import re
import threading

EVERY = 0.5  # seconds between two readings


class Largest:
    """Reads as long as its block runs.

    Args:
      pids: the processes; whatever they start counts too.

    Attributes:
      bytes: the largest sum of proportional set sizes, in which a page that processes share is counted once.
    """

    def __init__(self, pids: list[int]):
        self.bytes, self._pids, self._ended = 0, pids, threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(EVERY):
            self.bytes = max(self.bytes, sum(map(_proportional_bytes, with_descendants(self._pids))))


def with_descendants(pids: list[int]) -> list[int]:
    """The processes, and all that they and theirs have started and that still run."""
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_bytes().rpartition(b")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = list(pids)
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0
