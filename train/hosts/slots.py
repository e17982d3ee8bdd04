"""The slots of this host, a core or a GPU each: how many a study may fill with workers, and how one takes its own; and
what the control group of this process says: kills for want of memory, and quotas; version 1 and 2, Linux alone.

Light to import, since a worker takes its slot before JAX starts its threads.
"""

import math
import os
import pathlib
import re
from typing import NamedTuple

LAUNCHERS = ("here", "processes")
ROOT, ABOUT = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/proc/self/cgroup")


class Launcher(NamedTuple):
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
    return max(1, math.ceil(min(threads(), quota())))


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


def oom_kills() -> int:
    """Processes of this control group that the kernel killed for want of memory so far; 0 where nothing counts them."""
    line = re.search(r"^oom_kill (\d+)$", _read("memory", "memory.oom_control", "memory.events"), re.MULTILINE)
    return int(line[1]) if line else 0


def memory_limit() -> float:
    """Bytes that this control group may take, infinite without a limit."""
    text = _read("memory", "memory.limit_in_bytes", "memory.max").strip()
    return int(text) if text.isdecimal() else math.inf


def quota() -> float:
    """Cores' worth of time that the group may take, infinite without a quota."""
    share, period = _read("cpu", "cpu.cfs_quota_us", ""), _read("cpu", "cpu.cfs_period_us", "")
    words = [share.strip(), period.strip()] if share else _read("cpu", "", "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdecimal() else math.inf


def _read(controller: str, first: str, second: str) -> str:
    """The file `first` of a version 1 controller or `second` of version 2: of this process's group, or of the root
    where a container shows no more; '' where there is none."""
    groups = [line.split(":", 2) for line in ABOUT.read_text().splitlines()] if ABOUT.exists() else []
    for _, controllers, path in groups:
        if controller in controllers.split(","):
            base, name = ROOT / controller, first
        elif controllers == "":
            base, name = ROOT, second
        else:
            continue
        for folder in (base / path.lstrip("/"), base):
            if name and (folder / name).is_file():
                return (folder / name).read_text()
    return ""
