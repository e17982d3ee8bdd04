"""A workdir: what is in it, who writes to it, and whether a config may continue it. Paths are in docs/workdir.md."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import time
from collections.abc import Iterable

import pandas as pd

from train import grid
from train.config import InputError, StudyConfig, differences, freeze, refuse
from train.data import sources
from train.files import write_json

FORMAT = 2  # raise when code of today could not go on with a workdir of yesterday, or code of yesterday with this one
RECORDED = ("format", "config", "versions", "device", "data_fingerprint")  # what config.json holds
CELL_FIELDS = ("d_model", "num_heads", "head_ratio", "d_k", "num_layers", "logit_scales")  # of the grid
RUN_FIELDS = ("learning_rates", "init_seeds", "data_seeds")
MAY_CHANGE = {"train.memory_limit_gb"}  # a pack keeps the size that it began with
TIMING = ("step_ms", "tokens_per_second")  # what timing.json has at least
PRICES = ("rows",)  # and a launch of prices
LOCK_TRIALS = 5
FAILED = ("failed", "out_of_memory")  # the states of a cell that the next start tries again
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def read_json(path: pathlib.Path):
    """The content of `path`, None if it does not exist.

    Raises:
      InputError: the file is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"{path} is not readable as JSON ({error}); restore it, or use another --workdir.") from error


def read_measured(path: pathlib.Path, fields: Iterable[str]) -> dict:
    """The content of a JSON file that a study can measure again; empty if it is missing or lacks `fields`."""
    try:
        content = read_json(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) and content.keys() >= set(fields) else {}


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """The content of `path`, a .parquet.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); --mode=eval writes it again.") from error


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def _below(name: str) -> property:
    """The path of `name` in a folder."""
    return property(lambda folder: folder.path / name)


@dataclasses.dataclass(frozen=True)
class CellFolder:
    """`cells/<name>`: packs.json (what trains together and with which settings), status.json, metrics.jsonl,
    looks.jsonl, timing.json, checkpoints/pack_<i>/ and <table>_<i>.parquet of each measurement."""

    path: pathlib.Path
    metrics = _below("metrics.jsonl")
    looks = _below("looks.jsonl")
    timing = _below("timing.json")
    closed = _below("closed.json")

    def packs(self) -> list[dict]:
        return read_json(self.path / "packs.json") or []

    def write_packs(self, packs: list[dict]) -> None:
        write_json(self.path / "packs.json", packs)

    def status(self) -> dict:
        return read_json(self.path / "status.json") or {"state": "pending", "reason": ""}

    def write_status(self, state: str, reason: str = "") -> None:
        write_json(self.path / "status.json", {"state": state, "reason": reason})

    @property
    def failed(self) -> bool:
        return self.status()["state"] in FAILED

    def checkpoints(self, pack: int) -> pathlib.Path:
        return self.path / "checkpoints" / f"pack_{pack}"

    def measured(self, table: str, pack: int | None = None) -> pathlib.Path:
        """What a measurement (eval/measure) found of a pack, or of all packs together."""
        return self.path / (f"{table}.parquet" if pack is None else f"{table}_{pack}.parquet")

    def profile(self, pack: int) -> pathlib.Path:
        return self.path / "profile" / f"pack_{pack}"


@dataclasses.dataclass(frozen=True)
class Workdir:
    path: pathlib.Path
    data = _below("data")
    results = _below("results")
    report = _below("report")
    looks = _below("looks.json")

    def price(self, launch: int) -> pathlib.Path:
        return self.path / "prices" / f"launch_{launch:02d}.json"

    def cell(self, name: str) -> CellFolder:
        return CellFolder(self.path / "cells" / name)

    def record(self) -> dict | None:
        """config.json: config, versions, device, data fingerprint; None before a study has begun here.

        Raises:
          InputError: it was written by a newer or an older version, or is not what a study writes.
        """
        record = self._record_of_any_format()
        if record is None:
            return None
        newer, lacking = record["format"] > FORMAT, [name for name in RECORDED if name not in record]
        refuse(
            record["format"] != FORMAT
            and f"{self.path} was written by {'a newer' if newer else 'an older'} version (format {record['format']}, "
            f"this one reads {FORMAT}); {'update the code' if newer else 'run it with the version that wrote it,'} "
            f"or use another --workdir.",
            lacking
            and f"{self.path / 'config.json'} lacks {', '.join(lacking)}; restore it, or use another --workdir.",
        )
        return record

    def cells_of_older_format(self) -> list[str] | None:
        """The names in cells/ where an older version wrote them; None where none has begun, or this one or a newer."""
        record = self._record_of_any_format()
        names = sorted(path.name for path in (self.path / "cells").glob("*") if path.is_dir())
        return names if record and record["format"] < FORMAT else None

    def _record_of_any_format(self) -> dict | None:
        record = read_json(self.path / "config.json")
        if record is None or (isinstance(record, dict) and isinstance(record.get("format"), int)):
            return record
        raise InputError(f"{self.path / 'config.json'} is not a study's; restore it, or use another --workdir.")

    def write_record(self, config: StudyConfig, device: str, fingerprint: str) -> None:
        values = _as_json(config)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        record = {"format": FORMAT, "config": values, "config_sha256": digest, "versions": versions()}
        write_json(self.path / "config.json", record | {"device": device, "data_fingerprint": fingerprint})

    def check_continues(self, config: StudyConfig) -> None:
        """Raises InputError unless `config` is the workdir's own, grown at most by cells, rates and seeds."""
        record = self.record()
        if record is None:
            return refuse(
                (self.path / "cells").exists()
                and f"{self.path} holds cells and no config.json, so what they were trained with is unknown; restore "
                f"{self.path / 'config.json'}, or use another --workdir."
            )
        old, new = record["config"], _as_json(config)
        # A study of doses trains the runs of a stage side by side and ends them together.
        run_fields = () if config.dose.relations else RUN_FIELDS
        runs = {name: [{*(values["grid"].get(name) or ())} for values in (old, new)] for name in run_fields}
        may_grow = MAY_CHANGE | {f"grid.{name}" for name, (before, after) in runs.items() if before and before <= after}
        before = _cells(old)
        if before and before <= _cells(new):
            may_grow |= {f"grid.{field}" for field in CELL_FIELDS}
        changed = [line for line in differences(old, new) if line.partition(":")[0] not in may_grow]
        refuse(
            changed
            and f"{self.path} holds a study of another config ({'; '.join(changed)}); in one workdir only the grid may "
            f"grow. Use another --workdir, or repeat the old values."
        )

    def make_writable(self) -> None:
        """Creates the folder and writes to it once.

        Raises:
          InputError: that is not possible.
        """
        folders = (self.data, self.path / "cells", self.path / "prices", self.results, self.report)
        refuse(
            *(
                f"{path} is a file where a study keeps a folder; move it, or use another --workdir."
                for path in folders
                if path.exists() and not path.is_dir()
            )
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".writable").write_text("")
            (self.path / ".writable").unlink()
        except OSError as error:
            if disk_is_full(error):
                raise
            raise InputError(f"--workdir={self.path} cannot be written ({error.strerror}); choose another.") from error

    def lock(self):
        """Holds the workdir until the returned file is closed or the process ends.

        Raises:
          InputError: another process holds it.
        """
        # Unbuffered, since the lock holds even where a full disk has no room for the name of its holder.
        file = open(self.path / ".lock", "ab+", buffering=0)
        for _ in range(LOCK_TRIALS):  # its holder may be a reader that asks who writes
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                with contextlib.suppress(OSError):
                    file.write(f"process {os.getpid()} on {platform.node()}".encode())
                return file
            time.sleep(0.05)
        file.seek(0)
        holder = file.read().decode().strip() or "another process"
        file.close()
        raise InputError(
            f"{self.path} is being written by {holder}; wait for it, or stop it, or use another --workdir."
        )

    def writer(self) -> str | None:
        """Who holds the lock now, None if nobody does."""
        with contextlib.suppress(FileNotFoundError), open(self.path / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
        return None


def _as_json(config: StudyConfig) -> dict:
    """What config.json gives back of `config`: nested dicts, lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _cells(config: dict) -> set[str]:
    """The names of the cells of a recorded config; none where it is no config."""
    try:
        frozen = freeze(config)
        return {cell.name for cell in grid.cells_of(frozen, sources.vocab_size(frozen.data))}
    except (InputError, AttributeError, TypeError):
        return set()


def disk_is_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a full disk (or quota)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Orbax and XLA keep only the words; NumPy, which counts what it wrote, not even these.
        if re.search(r"No space left on device|ENOSPC|\d+ requested and \d+ written", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
