"""Where the cells of a study run: in this process, or each in a worker that has a core or a GPU to itself."""

import jax

from train.config import StudyConfig, refuse
from train.grid import Cell
from train.hosts import memory, slots
from train.run import packs
from train.workdir import Workdir


def workers_for(launcher: slots.Launcher, config: StudyConfig, workdir: Workdir, cells: tuple[Cell, ...]) -> int:
    """Worker processes that train `cells`, all of the grid; 0: they train in this process.

    Raises:
      InputError: more workers than slots, or settings that contradict each other.
    """
    platform = jax.default_backend()
    count = slots.count(platform, jax.local_device_count())
    name = launcher.name or _as_begun(workdir, cells) or _faster(config, cells, count if platform == "cpu" else 0)
    here = name == "here"
    refuse(
        here
        and launcher.workers
        and f"--workers={launcher.workers} needs --launcher=processes; add it, or drop --workers.",
        not here
        and platform not in ("cpu", "gpu")
        and f"--launcher=processes needs cores or GPUs, and JAX runs on {platform}, whose devices belong to one "
        f"process; use --launcher=here.",
        not here
        and _devices(config) > 1
        and f"--launcher=processes gives each worker one device, and mesh.data={config.mesh.data}, mesh.replicas="
        f"{config.mesh.replicas} use several in a program; leave both out, or --launcher=here.",
        launcher.workers > count
        and f"--workers={launcher.workers}, but this host has {count} slot{'s' * (count > 1)} (a core or a GPU each); "
        f"ask for {count} at most, or leave --workers out.",
    )
    return 0 if here else launcher.workers or min(count, len(cells))


def _devices(config: StudyConfig) -> int:
    return config.mesh.data * max(1, config.mesh.replicas)


def _as_begun(workdir: Workdir, cells: tuple[Cell, ...]) -> str:
    """How the study in `workdir` was launched, as far as its bits depend on it; '' for a new one, or one from a host
    with other cores or GPUs. A worker is told by having one of several."""
    kind, here = "devices", jax.local_device_count()
    if jax.default_backend() == "cpu":
        kind, here = "threads", slots.threads()
    begun = {record["environment"][kind] for cell in cells for record in workdir.cell(cell.name).packs()}
    if here == 1 or len(begun) != 1:
        return ""
    return {1: "processes", here: "here"}.get(begun.pop(), "")


def _faster(config: StudyConfig, cells: tuple[Cell, ...], cores: int) -> str:
    """Workers on CPU where there is a cell for every core, since the threads of one process do not fill the cores at
    the steps of small models, and memory for the largest of them side by side. Unmeasured elsewhere, so `here`."""
    if cores < 2 or len(cells) < cores or _devices(config) > 1:
        return "here"
    largest = sorted(packs.estimates(cells, config, corpus_tokens=0).values())[-cores:]
    return "processes" if sum(largest) <= memory.limit(config.train) else "here"
