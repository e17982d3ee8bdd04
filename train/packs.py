"""Packs: the replicas of a cell that train in one program, with the settings that shape their bits.

A pack is written to the cell's packs.json before its step 0 and read back by every resume. Replicas that are added to
a study later form a pack of their own, so that no finished one is touched.
"""

import dataclasses
import os
import shutil

import jax
import jax.numpy as jnp
import jaxlib

from mha.kernels import dispatch
from mha.transformer import ModelConfig
from train.config import InputError, StudyConfig
from train.grid import Cell, Replica
from train.workdir import CellFolder


@dataclasses.dataclass(frozen=True)
class Pack:
    """What one program trains.

    Attributes:
      index: its place in the cell's packs.json.
      model: the shape, its attention path resolved.
      replicas: what trains side by side.
      replica_map: `vmap` or `scan`.
      environment: threads, XLA flags, versions and device; the same bits need the same ones.
    """

    index: int
    model: ModelConfig
    replicas: tuple[Replica, ...]
    replica_map: str
    environment: dict

    def as_json(self) -> dict:
        return dataclasses.asdict(self)


def from_json(value: dict) -> Pack:
    model = ModelConfig(**{**value["model"], "d_ff": tuple(value["model"]["d_ff"])})
    replicas = tuple(Replica(**replica) for replica in value["replicas"])
    return Pack(value["index"], model, replicas, value["replica_map"], value["environment"])


def environment(config: StudyConfig) -> dict:
    """Everything outside the config that shapes the bits of a training run."""
    return {
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "jaxlib": jaxlib.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": config.mesh.data,
    }


def resolve(cell: Cell, config: StudyConfig) -> tuple[ModelConfig, str]:
    """The cell's model with its attention path named, and the replica map, for the present backend.

    Raises:
      InputError: the requested path cannot serve this cell.
    """
    backend, model = jax.default_backend(), cell.model
    try:
        choice = dispatch.choose(
            model.attention,
            backend=backend,
            d_k=model.d_k,
            length=model.seq_len,
            dtype=jnp.dtype(model.dtype),
            causal=model.causal,
            segments=True,
        )
    except ValueError as error:
        raise InputError(f"{cell.name}: {error}") from error
    auto = "scan" if backend == "cpu" else "vmap"
    replica_map = auto if config.train.replica_map == "auto" else config.train.replica_map
    return dataclasses.replace(model, attention=choice.path), replica_map


def plan(cell: Cell, folder: CellFolder, config: StudyConfig, say) -> list[tuple[Pack, bool]]:
    """The cell's packs in training order, each with whether it is trained to the end; new ones are written down first.

    A pack that has not finished restarts, and says so, if the settings that it began with cannot be had again.

    Raises:
      InputError: the grid now gives this cell another shape than the one that it was trained with.
    """
    model, replica_map = resolve(cell, config)
    here = environment(config)
    records = folder.packs()
    for record in records:
        pack = from_json(record)
        same_shape = dataclasses.replace(pack.model, attention=model.attention) == model
        if not same_shape:
            raise InputError(
                f"{cell.name} was trained as {pack.model}, and the grown grid makes it {model}; keep the largest "
                f"d_model (its budget sets every d_ff), or use another --workdir."
            )
        if record["trained"] is None and pack.environment != here:
            changed = ", ".join(f"{k}: {v} -> {here.get(k)}" for k, v in pack.environment.items() if v != here.get(k))
            say(f"{cell.name} starts again from step 0: {changed} would change its bits.")
            shutil.rmtree(folder.checkpoints(pack.index), ignore_errors=True)
            record.update(dataclasses.replace(pack, environment=here, model=model, replica_map=replica_map).as_json())
    known = {replica for record in records for replica in from_json(record).replicas}
    added = tuple(replica for replica in cell.replicas if replica not in known)
    if added:
        pack = Pack(len(records), model, added, replica_map, here)
        records.append({**pack.as_json(), "trained": None})
    folder.write_packs(records)
    return [(from_json(record), record["trained"] is not None) for record in records]


def mark_trained(folder: CellFolder, pack: Pack, trained: dict | None) -> None:
    """Records the outcome of `pack` (None: it must train again)."""
    records = folder.packs()
    records[pack.index]["trained"] = trained
    folder.write_packs(records)
