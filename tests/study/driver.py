"""main.py with one fault in it: driver.py FAULT ARGUMENTS, where FAULT is the JSON of tests.study.tiny.Fault.

The workers of such a study have the fault too, and with `worker` they alone.
"""

import errno
import importlib
import json
import os
import pathlib
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

SOON = 0.3  # seconds


class Late:
    """Its end, which is this module's, comes after Python has put its own signal handlers back."""

    def __del__(self, kill=os.kill, pid=os.getpid, number=signal.SIGTERM):
        kill(pid(), number)


late = []


def inject(module: str, name: str, call: int, after: bool, act: str, worker: str) -> None:
    """From its `call`-th call on, the function `name` of `module` meets with `act`."""
    *path, last = name.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), 0

    def faulty(*args, **kwargs):
        nonlocal calls
        calls += 1
        now = calls == call and not (worker and pathlib.Path(worker).exists())
        result = original(*args, **kwargs) if after or not now else None
        if now:
            if worker and pathlib.Path(worker).parent.is_dir():
                pathlib.Path(worker).touch()
            happen(act)
            result = result if after else original(*args, **kwargs)
        return result

    setattr(owner, last, faulty)


def happen(act: str) -> None:
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act.endswith(" soon"):  # while what follows runs
        threading.Timer(SOON, happen, [act.removesuffix(" soon")]).start()
    elif act == "terminate":
        print("terminated", time.time(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    elif act == "terminate group":
        os.killpg(0, signal.SIGTERM)
    elif act == "terminate at exit":
        late.append(Late())
    elif act == "terminate and linger":
        print("terminated", time.time(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    elif act in ("kill parent", "terminate parent"):
        print("terminated", time.time(), file=sys.stderr, flush=True)
        os.kill(os.getppid(), signal.SIGKILL if act == "kill parent" else signal.SIGTERM)
    elif act == "take all memory":
        taken = []
        while True:
            taken.append(bytearray(os.urandom(1 << 20)) * 64)
    elif act == "disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    import main

    main.WORKER = (sys.executable, __file__, sys.argv[1], "worker")
    fault = json.loads(sys.argv[1])
    if sys.argv[2] == "worker" or not fault["worker"]:
        inject(**fault)
    main.leave(main.main(sys.argv[2:]))
