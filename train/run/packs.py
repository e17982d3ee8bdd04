"""Packs: the replicas of a cell that train in one program, with the settings that shape their bits.

A pack is written to the cell's packs.json before its step 0 and read back by every resume. Replicas that are added to
a study later form a pack of their own, so that no finished one is touched.
"""

import dataclasses
import itertools
import os
import pathlib
import platform
import re
import shutil
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from mha.kernels import dispatch
from mha.transformer import ModelConfig
from train.config import InputError, StudyConfig, refuse
from train.grid import Cell, Replica, most_replicas
from train.hosts import memory, slots
from train.run import sharding
from train.workdir import CellFolder, versions

# From so many on, `model.layers=auto` scans on an accelerator, as is usual there; not measured. On a CPU a scan takes
# 1.07 to 1.15 times as long and compiles no sooner: benchmarks/scale.py, `layers`.
SCANNED_LAYERS = 12
SHAPING_PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")  # whose versions the bits depend on


@dataclasses.dataclass(frozen=True)
class Pack:
    """What one program trains.

    Attributes:
      index: its place in the cell's packs.json.
      model: the shape, its attention path resolved.
      dose: as of its cell.
      replicas: what trains side by side.
      replica_map: `vmap` or `scan`.
      rows: of its program under `scan`; 0 = as many as the larger stage of the study needs, so that one program serves
        both.
      environment: threads, XLA flags, versions and device; the same bits need the same ones.
    """

    index: int
    model: ModelConfig
    replicas: tuple[Replica, ...]
    replica_map: str
    environment: dict
    rows: int = 0
    dose: int = 0

    as_json = dataclasses.asdict


def from_json(value: dict) -> Pack:
    model = ModelConfig(**{**value["model"], "d_ff": tuple(value["model"]["d_ff"])})
    same = {name: value[name] for name in ("index", "replica_map", "environment", "rows", "dose")}
    return Pack(model=model, replicas=tuple(Replica(**replica) for replica in value["replicas"]), **same)


def read(folder: CellFolder) -> list[tuple[Pack, dict | None]]:
    """A cell's packs, each with what was recorded of it once it was trained to the end."""
    return [(from_json(record), record["trained"]) for record in folder.packs()]


def environment(config: StudyConfig) -> dict:
    """Everything outside the config that shapes the bits of a training run."""
    return {
        "threads": slots.threads(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: version for name, version in versions().items() if name in SHAPING_PACKAGES},
        "device": jax.devices()[0].device_kind,
        "devices": config.mesh.data * sharding.replica_devices(config.mesh),
        "cpu": _cpu() if jax.default_backend() == "cpu" else "",
    }


def _cpu() -> str:
    """The processor's name: XLA compiles for the instructions that it has, and they shape the bits."""
    about = pathlib.Path("/proc/cpuinfo")
    named = re.search(r"^model name[^:]*:(.*)$", about.read_text() if about.exists() else "", re.MULTILINE)
    return named[1].strip() if named else platform.processor()


def resolve(cell: Cell, config: StudyConfig) -> tuple[ModelConfig, str]:
    """The cell's model with its attention path and the form of its layers named, and the replica map, for the present
    backend.

    Raises:
      InputError: the requested path cannot serve this cell.
    """
    backend, model = jax.default_backend(), cell.model
    try:
        choice = dispatch.choose(
            model.attention, backend=backend, d_k=model.d_k, length=model.seq_len, dtype=jnp.dtype(model.dtype)
        )
    except ValueError as error:
        raise InputError(f"{cell.name}: {error}") from error
    auto = "scan" if backend == "cpu" else "vmap"
    replica_map = auto if config.train.replica_map == "auto" else config.train.replica_map
    deep = backend != "cpu" and model.num_layers >= SCANNED_LAYERS
    scanned = config.model.layers == "scanned" or (config.model.layers == "auto" and deep)
    return dataclasses.replace(model, attention=choice.path, scan_layers=scanned), replica_map


def check_shape(cell: Cell, folder: CellFolder, config: StudyConfig) -> None:
    """Raises InputError if the grid now gives this cell another shape than the one that it was trained with."""
    model, _ = resolve(cell, config)
    for pack, _ in read(folder):
        trained = dataclasses.replace(pack.model, attention=model.attention, scan_layers=model.scan_layers)
        changed = _changes(dataclasses.asdict(trained), dataclasses.asdict(model), str)
        refuse(
            changed
            and f"the grown grid gives {cell.name} another shape than it was trained with ({changed}); keep the "
            f"largest d_model, whose budget sets every d_ff, or use another --workdir."
        )


def _changes(before: dict, after: dict, shown: Callable) -> str:
    """'name old -> new, ...' for what differs."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {shown(before.get(name))} -> {shown(after.get(name))}" for name in names)


def estimates(cells: Iterable[Cell], config: StudyConfig, corpus_tokens: int) -> dict[str, int]:
    """Bytes that each cell's program takes by the estimate, with as many replicas as fit.

    Raises:
      InputError: the requested attention path cannot serve a cell.
    """
    sizes, batch_size = {}, config.train.batch_size // config.train.accumulate  # whose activations are held at once
    for cell in cells:
        model, replica_map = resolve(cell, config)
        most = max(len(cell.replicas), most_replicas(config))
        replicas = memory.replicas_that_fit(config, model, most, replica_map, corpus_tokens)
        sizes[cell.name] = memory.estimate(model, replicas, replica_map, batch_size, corpus_tokens)
    return sizes


def plan(
    cell: Cell, folder: CellFolder, config: StudyConfig, corpus_tokens: int, say: Callable[[str], None]
) -> list[tuple[Pack, bool]]:
    """The cell's packs in training order, each with whether it is trained to the end; new ones are written down first,
    one a start, or as many as it takes for each to fit the memory.

    A pack that has not finished restarts, and says so, if the settings that it began with cannot be had again.
    """
    model, replica_map = resolve(cell, config)
    here, before, records = environment(config), folder.packs(), folder.packs()
    for record in records:
        pack = from_json(record)
        if record["trained"] is None and pack.environment != here:
            changed = _changes(dict(sorted(pack.environment.items())), dict(sorted(here.items())), repr)
            say(f"{cell.name} starts again from step 0, since its bits depend on {changed}.")
            shutil.rmtree(folder.checkpoints(pack.index), ignore_errors=True)
            record.update(dataclasses.replace(pack, environment=here, model=model, replica_map=replica_map).as_json())
    known = {replica for record in records for replica in from_json(record).replicas}
    added = tuple(replica for replica in cell.replicas if replica not in known)
    most = max(len(added), most_replicas(config))
    rows = memory.replicas_that_fit(config, model, most, replica_map, corpus_tokens)
    for _, alike in itertools.groupby(added, lambda replica: replica.start):
        while some := tuple(itertools.islice(alike, rows)):
            pack = Pack(len(records), model, some, replica_map, here, rows if rows < most else 0, cell.dose)
            records.append({**pack.as_json(), "trained": None})
    if records != before:
        folder.write_packs(records)
    return [(pack, trained is not None) for pack, trained in read(folder)]


def halve(folder: CellFolder) -> bool:
    """Cuts each pack that is not trained in two, which start again from step 0; whether there was one to cut."""
    records = folder.packs()
    whole = [from_json(record) for record in records if record["trained"] is None and len(record["replicas"]) > 1]
    for pack in whole:
        rows = (len(pack.replicas) + 1) // 2
        halves = pack.replicas[:rows], pack.replicas[rows:]
        for index, replicas in zip((pack.index, len(records)), halves, strict=True):
            half = dataclasses.replace(pack, index=index, replicas=replicas, rows=rows)
            records[index : index + 1] = [{**half.as_json(), "trained": None}]
        shutil.rmtree(folder.checkpoints(pack.index), ignore_errors=True)
    if whole:
        folder.write_packs(records)
    return bool(whole)


def mark_trained(folder: CellFolder, pack: Pack, trained: dict | None) -> None:
    """Records the outcome of `pack` (None: it must train again)."""
    records = folder.packs()
    records[pack.index]["trained"] = trained
    folder.write_packs(records)
