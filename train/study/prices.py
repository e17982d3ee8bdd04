"""What a step costs in time and memory, cell against cell, in processes of their own with nothing else running.

A launch is the unit: it times every cell on every attention path, in random order, so that what a process brings along
(memory layout, the processor's clock) meets all of them alike. `python -m train.study.prices WORKDIR LAUNCH CELL...` is
one.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import random
import statistics
import subprocess
import sys
import time

from train.files import write_json
from train.hosts import xla_flags
from train.study.worker import end_with_parent
from train.workdir import PRICES, Workdir, read_measured

PATHS = ("auto", "reference")  # the dispatcher's choice, and plain attention
ROUNDS = 5
SECONDS = 0.05  # aimed at for one measurement of the fastest program
MIN_STEPS = 4  # in a measurement
ROOT = pathlib.Path(__file__).resolve().parents[2]


def measure(study, names: tuple[str, ...], launches: int) -> bool:
    """Writes prices/launch_<i>.json for every launch that has not timed exactly the cells `names`; False where one
    failed, and those after it were left."""
    missing = lacking(study.workdir, names, launches)
    study.progress.expect(bool(missing))
    for launch in missing:
        study.progress.begin("price", f"launch {launch + 1} of {launches}, {len(names)} cells on two paths")
        command = [sys.executable, "-m", "train.study.prices", str(study.workdir.path.resolve()), str(launch), *names]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        failed = _wait(subprocess.Popen(command, cwd=ROOT, **pipes), study.stop)
        if failed:
            study.progress.end("price", "failed", failed)
            return False
    if missing:
        study.progress.end("price", "done", "")
    return True


def lacking(workdir: Workdir, names: tuple[str, ...], launches: int) -> list[int]:
    """The launches that have not timed exactly the cells `names`."""
    rows = {launch: read_measured(workdir.price(launch), PRICES).get("rows", ()) for launch in range(launches)}
    return [launch for launch in rows if names and {row["cell"] for row in rows[launch]} != {*names}]


def _wait(process: subprocess.Popen, stop) -> str:
    """Waits for a launch; one that must stop leaves no process behind. Returns why it failed, '' if it did not."""
    try:
        while process.poll() is None:
            stop.check()
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
        said = process.communicate()[1].decode(errors="replace")
    stop.check()  # a signal to the whole group ends the launch too
    return f"a launch that times steps ended with code {process.returncode}: {said[-500:]}" * bool(process.returncode)


def main(workdir: Workdir, launch: int, names: list[str]) -> None:
    """One launch: for each cell and path the median step time of a replica, and the bytes of a program for it alone."""
    import jax

    from train.hosts import memory
    from train.run import feed, packs
    from train.run.program import Program
    from train.study.launch import reopened
    from train.study.timing import seconds_a_step

    config, corpus, cells = reopened(workdir)
    programs, states = {}, {}
    for name, path in itertools.product(names, PATHS):
        cell = cells[name]
        model = dataclasses.replace(cell.model, attention=path)
        model, replica_map = packs.resolve(dataclasses.replace(cell, model=model), config)
        pack = packs.Pack(0, model, cell.replicas[:1], replica_map, packs.environment(config), rows=1)
        before = [program for (other, _), program in programs.items() if other == name]
        # Plain attention may not fit where the fast path does; the row is left out.
        with contextlib.suppress(memory.OutOfMemory):
            program = Program(pack, config, feed.of(config, corpus, cell.dose), before)
            programs[name, path], states[name, path] = program, program.init()

    def seconds(key, count: int) -> float:
        taken, states[key] = seconds_a_step(programs[key], states[key], count)
        return taken

    for key in programs:  # the first dispatch of a program is not like the others
        seconds(key, 1)
    # One number of steps for all, since each dispatch has a cost of its own.
    count = max(MIN_STEPS, min(feed.STEPS_PER_DISPATCH, round(SECONDS / min(seconds(key, 1) for key in programs))))
    taken, order, draw, rows = {key: [] for key in programs}, list(programs), random.Random(launch), []
    for _ in range(ROUNDS):
        draw.shuffle(order)
        for key in order:
            taken[key].append(seconds(key, count))
    for (name, path), program in programs.items():
        row = {"launch": launch, "cell": name, "path": path, "attention": program.pack.model.attention}
        median = 1e3 * statistics.median(taken[name, path])
        rows.append(row | {"step_ms": median, "memory_bytes": program.bytes})
    write_json(workdir.price(launch), {"rows": rows, "device": jax.devices()[0].device_kind})


if __name__ == "__main__":
    end_with_parent(lambda line: None)  # no launch may go on beside those of the rerun
    xla_flags.use()
    main(Workdir(pathlib.Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])
