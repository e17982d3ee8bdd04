"""Checkpoints of one pack of replicas, by Orbax: asynchronous, the newest two and those of chosen steps kept, every
array's digest verified.

The only file that imports orbax.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import pathlib
import shutil

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

KEPT = 2
# Of a save that fails Orbax logs ten tracebacks, and raises it as well.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


class CorruptCheckpoint(Exception):
    """A checkpoint that cannot be read back as it was written; the message names the file or array."""


class Saver(contextlib.AbstractContextManager):
    """Writes the checkpoints of one folder, in a thread of its own; as a context manager it finishes a pending save.

    Args:
      kept: steps whose checkpoints are never removed; of the others the newest KEPT stay.
    """

    def __init__(self, folder: pathlib.Path, kept: tuple[int, ...] = ()):
        policies = ocp.training.preservation_policies
        self._thread, self._pending = concurrent.futures.ThreadPoolExecutor(max_workers=1), None
        opened = self._thread.submit(  # all calls come from this one thread
            ocp.training.Checkpointer,
            folder.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(KEPT), policies.CustomSteps(kept)]),
            cleanup_tmp_directories=True,
        )
        self._checkpointer = opened.result()

    def __exit__(self, *_):
        with self._thread:
            try:
                self._wait()
            finally:
                self._thread.submit(self._checkpointer.close).result()

    def save(self, step: int, items: dict, description: dict) -> None:
        """Starts to save `items` (name -> pytree of arrays) as `step`, after the save before it has finished.

        Args:
          step: training steps done.
          items: what to save; the caller may donate its arrays as soon as this returns.
          description: JSON data from which evaluation rebuilds the model; read back by `describe`.
        """
        self._wait()
        copied = jax.tree.map(lambda array: array.copy(), items)
        self._pending = self._thread.submit(self._write, step, copied, description)

    def _wait(self) -> None:
        """Until the last save is on disk; raises what it ended with, however often it is asked."""
        if self._pending:
            self._pending.result()

    def _write(self, step: int, items: dict, description: dict) -> None:
        items = jax.device_get(items)
        about = {"description": description, "description_digest": _digest_of_json(description)}
        about["digests"] = _digests(items)
        self._checkpointer.save_checkpointables(step, items, custom_metadata=about)


def steps_in(folder: pathlib.Path) -> list[int]:
    """Steps of the finished checkpoints in `folder`, newest first."""
    return sorted((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), reverse=True)


def describe(folder: pathlib.Path, step: int) -> dict:
    """The description that was saved with `step`.

    Raises:
      CorruptCheckpoint: the metadata cannot be read, or is not what was saved.
    """
    return _metadata(folder, step)["description"]


def digest(folder: pathlib.Path, step: int) -> str:
    """SHA-256 of all that was saved with `step`.

    Raises:
      CorruptCheckpoint: the metadata cannot be read, or is not what was saved.
    """
    return _digest_of_json(_metadata(folder, step))


def restore(folder: pathlib.Path, step: int, abstract: dict) -> dict:
    """The items named in `abstract` (name -> pytree of jax.ShapeDtypeStruct with shardings), verified bit by bit.

    Raises:
      CorruptCheckpoint: an array is missing, of another shape, unreadable, or not the one that was saved.
    """
    digests = _metadata(folder, step)["digests"]
    try:
        with ocp.training.Checkpointer(folder.absolute()) as checkpointer:
            items = checkpointer.load_checkpointables(step, abstract)
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise  # says nothing about the checkpoint, which the caller would drop
        wanted = ", ".join(f"{path} {leaf.shape}" for path, leaf in _leaves(abstract))
        raise CorruptCheckpoint(
            f"{folder / str(step)} cannot be restored ({_first_line(error)}); wanted {wanted}; "
            f"saved {', '.join(digests)}."
        ) from error
    for path, digest in _digests(items).items():
        if digest != digests.get(path):
            raise CorruptCheckpoint(f"{folder / str(step)}: array {path} is not the one saved (its SHA-256 differs).")
    return items


def restore_newest(folder: pathlib.Path, abstract: dict, say) -> tuple[int, dict] | None:
    """The newest checkpoint that reads back whole, as (step, items); None if there is none.

    Corrupt ones are removed, so that their steps can be saved again, and named through `say`.
    """
    for step in steps_in(folder):
        try:
            return step, restore(folder, step, abstract)
        except CorruptCheckpoint as error:
            say(f"{error} Falling back to the checkpoint before it.")
            shutil.rmtree(folder / str(step))
    return None


def _metadata(folder: pathlib.Path, step: int) -> dict:
    try:
        with ocp.training.Checkpointer(folder.absolute()) as checkpointer:
            metadata = checkpointer.checkpointables_metadata(step).custom_metadata
        saved = {"description": metadata["description"], "digests": metadata["digests"]}
        whole = metadata["description_digest"] == _digest_of_json(saved["description"])
    except Exception as error:
        raise CorruptCheckpoint(f"{folder / str(step)}: metadata unreadable ({_first_line(error)}).") from error
    if not whole:
        raise CorruptCheckpoint(f"{folder / str(step)}: its description is not the one saved (its SHA-256 differs).")
    return saved


def _leaves(items):
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(items)]


def _digests(items: dict) -> dict[str, str]:
    return {path: hashlib.sha256(np.ascontiguousarray(leaf)).hexdigest() for path, leaf in _leaves(items)}


def _digest_of_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
