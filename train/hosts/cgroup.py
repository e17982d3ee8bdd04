"""What the control group of this process says: kills for want of memory, and quotas; version 1 and 2, Linux alone."""

import math
import pathlib
import re

ROOT, ABOUT = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/proc/self/cgroup")


def oom_kills() -> int:
    """Processes of this control group that the kernel killed for want of memory so far; 0 where nothing counts them."""
    found = re.search(r"^oom_kill (\d+)$", _read("memory", "memory.oom_control", "memory.events"), re.MULTILINE)
    return int(found[1]) if found else 0


def memory_limit() -> float:
    """Bytes that the group may take, infinite without a limit."""
    text = _read("memory", "memory.limit_in_bytes", "memory.max").strip()
    return int(text) if text.isdecimal() else math.inf


def cores() -> float:
    """Cores' worth of time that the group may take, infinite without a quota."""
    quota, period = _read("cpu", "cpu.cfs_quota_us", ""), _read("cpu", "cpu.cfs_period_us", "")
    words = [quota.strip(), period.strip()] if quota else _read("cpu", "", "cpu.max").split()
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
