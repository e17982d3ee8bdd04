"""main.py with one fault in it: driver.py FAULT ARGUMENTS, where FAULT is the JSON of tests.study.tiny.Fault."""

import errno
import importlib
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))


def inject(module: str, name: str, call: int, after: bool, act: str) -> None:
    """From its `call`-th call on, the function `name` of `module` meets with `act`."""
    *path, last = name.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), 0

    def faulty(*args, **kwargs):
        nonlocal calls
        calls += 1
        result = original(*args, **kwargs) if after or calls != call else None
        if calls == call:
            happen(act)
            result = result if after else original(*args, **kwargs)
        return result

    setattr(owner, last, faulty)


def happen(act: str) -> None:
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "terminate":
        print("terminated", time.time(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    elif act == "terminate and linger":
        print("terminated", time.time(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    elif act == "disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    import main

    inject(**json.loads(sys.argv[1]))
    sys.exit(main.main(sys.argv[2:]))
