"""Runs that go on from a trained one: without some of its heads, or whole, with the same further steps.

Heads that are removed have w_v and w_o of 0: what they add is 0, and so is the gradient in either, so they stay away
while the rest trains (as with train.run.starts.NO_ATTENTION).
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np

from train import grid
from train.config import StudyConfig
from train.files import write_json
from train.run import checkpoint, packs
from train.run.packs import Pack
from train.workdir import CellFolder, read_json

# What a run starts from; behind the last two comes which heads it lacks.
UNPRUNED, PRUNED, FROM_SCRATCH = "unpruned", "pruned", "from_scratch"
IN_NAMES = f"_{UNPRUNED}|_{PRUNED}_|_{FROM_SCRATCH}_"  # of these runs alone
WARMUP = 0.1  # of the steps

Head = tuple[int, int]  # layer and number


def start(what: str, order: str, count: int) -> str:
    """The start of a run without `count` heads, the first in an order; FROM_SCRATCH it draws its weights anew."""
    return f"{what}_{order}_{count}"


def goes_on(replica: grid.Replica) -> bool:
    """Whether a run starts from the weights of a trained one."""
    return replica.start == UNPRUNED or replica.start.startswith(f"{PRUNED}_")


def belongs(replica: grid.Replica) -> bool:
    """Whether a run is of the kind that this file starts."""
    return goes_on(replica) or replica.start.startswith(f"{FROM_SCRATCH}_")


def parent(replica: grid.Replica) -> grid.Replica:
    """The run whose weights, or heads, one starts from."""
    return dataclasses.replace(replica, start=grid.DRAWN)


def note(folder: CellFolder, closed: Iterable[tuple[grid.Replica, list[Head]]]) -> None:
    """Writes down which heads runs start without, before they are trained; what is there already stays."""
    known = read_json(folder.closed) or {}
    added = {replica.name: [list(head) for head in heads] for replica, heads in closed}
    write_json(folder.closed, {**added, **known})


def config_of(config: StudyConfig, pack: Pack) -> StudyConfig:
    """The config that a pack trains with: that of the study, of one that goes on with the steps of its recovery, their
    warm-up and peak rate."""
    if not goes_on(pack.replicas[0]):
        return config
    steps = config.pruning.recovery_steps
    train = dataclasses.replace(config.train, steps=steps, warmup_steps=int(WARMUP * steps), profile_steps=())
    return dataclasses.replace(config, train=train)


def beginning(folder: CellFolder, pack: Pack) -> Callable[[dict], dict] | None:
    """From the weights that are drawn for a pack, stacked by replica, those that it starts with; None: as drawn."""
    if not belongs(pack.replicas[0]):
        return None

    def begin(drawn: dict) -> dict:
        closed, rows = read_json(folder.closed) or {}, []
        for row, replica in enumerate(pack.replicas):
            own = jax.tree.map(lambda leaf, row=row: np.array(leaf[row]), jax.device_get(drawn))
            own = _trained(folder, parent(replica), own) if goes_on(replica) else own
            rows.append(without(own, [] if replica.start == UNPRUNED else closed[replica.name]))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    return begin


def without(params: dict, heads: Iterable[Head]) -> dict:
    """The parameters of one replica, NumPy arrays, with heads that add nothing for good."""
    changed = dict(params)
    for layer, head in heads:
        block = changed[f"block_{layer}"]
        own = {name: np.array(block["attention"][name]) for name in ("w_v", "w_o")}
        own["w_v"][:, head], own["w_o"][head] = 0, 0
        changed[f"block_{layer}"] = block | {"attention": block["attention"] | own}
    return changed


def _trained(folder: CellFolder, replica: grid.Replica, like: dict) -> dict:
    """The weights of a trained run of the cell.

    Raises:
      checkpoint.CorruptCheckpoint: they are lost.
    """
    trained_in = [(pack, ended["step"]) for pack, ended in packs.read(folder) if ended and replica in pack.replicas]
    if not trained_in:
        raise checkpoint.CorruptCheckpoint(f"{folder.path} has no trained run {replica.name} to go on from.")
    pack, step = trained_in[0]
    place, count = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), len(pack.replicas)
    row = pack.replicas.index(replica)
    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype, sharding=place), like)
    stored = checkpoint.restore(folder.checkpoints(pack.index), step, {"params": whole})["params"]
    return jax.tree.map(lambda leaf: np.array(leaf[row]), stored)
