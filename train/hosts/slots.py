"""The slots of this host, a core or a GPU each: how many a study may fill with workers, and how one takes its own.

Light to import, since a worker takes its slot before JAX starts its threads.
"""

import dataclasses
import math
import os

from train.hosts import cgroup

LAUNCHERS = ("here", "processes")


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Where cells run, as the command line says.

    Attributes:
      name: `here`, `processes`, or '': as the workdir began, and for a new one what is faster by measurement.
      workers: processes; 0 = one a slot.
      command: the words that start a worker; its workdir, slot and platform are appended.
    """

    name: str
    workers: int
    command: tuple[str, ...]


def threads() -> int:
    """Cores that this process may use, which is how many threads XLA starts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def threads_in_slot(platform: str) -> int:
    """Cores that a process may use once it has taken a slot (`take`)."""
    return 1 if platform == "cpu" and hasattr(os, "sched_setaffinity") else threads()


def count(platform: str, devices: int) -> int:
    """Workers that can run side by side, each with a slot of its own, where JAX has `devices` of `platform`."""
    if platform != "cpu":
        return devices
    if not hasattr(os, "sched_setaffinity"):  # not Linux: no process can be kept to one core
        return 1
    return max(1, math.ceil(min(threads(), cgroup.cores())))


def take(slot: int, platform: str) -> None:
    """Keeps this process to one slot. Call before JAX is imported."""
    if platform != "cpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot] if visible else str(slot)
    elif hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[slot]})


def leave_gpus_to_workers() -> None:
    """Lets this process take only the GPU memory that it needs. Call before JAX is imported."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
