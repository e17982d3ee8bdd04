"""What a start of the default study takes: seconds to its first line and its first step, and host memory.

python -m benchmarks.start --output docs/benchmarks/start     about 2 minutes a round on two cores

Each round begins three studies of the default config, in new workdirs, and asks each to stop --seconds after its first
training step: two with one compile cache between them, empty before the first; and one more with an empty cache, whose
memory is read meanwhile, so that reading slows no start. Memory is read from /proc, so this runs on Linux alone.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from benchmarks import about, host_memory

ROOT = pathlib.Path(__file__).resolve().parent.parent
DONE, RUN_AGAIN = 0, 75  # exit codes of main.py
TITLES = {
    "help": "`main.py --help`, s",
    "first_line": "first line on the screen, s",
    "first_step_cold": "first training step, empty compile cache, s",
    "first_step_warm": "first training step of a second study with that cache, s",
    "memory": "largest memory of all processes together, MB",
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=30, help="that a study runs on after its first step")
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    run(arguments.parse_args())


def run(args):
    from train import xla_flags

    xla_flags.use()
    figures = {name: [] for name in TITLES}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found, device = once(pathlib.Path(folder).resolve(), args.seconds)
        print({name: round(value, 2) for name, value in found.items()}, flush=True)
        for name, value in found.items():
            figures[name].append(value)
    results = about.describe("start", device) | {"seconds_after_first_step": args.seconds, "figures": figures}
    text = page(results)
    print(text)
    if args.output:
        about.write(args.output, results, text)


def once(folder: pathlib.Path, seconds: float) -> tuple[dict[str, float], str]:
    """One round's figures, and the device that the studies ran on."""
    from train.workdir import read_json

    began = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "main.py"), "--help"], stdout=subprocess.DEVNULL, check=True)
    helped = time.perf_counter() - began
    cold = study(folder / "cold", folder / "cache", seconds)
    warm = study(folder / "warm", folder / "cache", seconds)
    read = study(folder / "read", folder / "other_cache", seconds, read_memory=True)
    found = {"help": helped, "first_line": cold["first_line"], "first_step_cold": cold["first_step"]}
    found |= {"first_step_warm": warm["first_step"], "memory": read["memory"]}
    return found, read_json(folder / "cold" / "config.json")["device"]


def study(workdir: pathlib.Path, cache: pathlib.Path, seconds: float, read_memory: bool = False) -> dict[str, float]:
    """Seconds from the start of the default study to its first line and first step, and megabytes if they are read; it
    is stopped `seconds` later."""
    command = [sys.executable, str(ROOT / "main.py"), f"--workdir={workdir}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    began, found = time.perf_counter(), {}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    memory = host_memory.Largest([process.pid])
    try:
        with memory if read_memory else contextlib.nullcontext():
            for line in process.stdout:
                passed = time.perf_counter() - began
                found.setdefault("first_line", passed)
                if "first_step" not in found and ": step " in line:
                    found["first_step"] = passed
                    threading.Timer(seconds, process.terminate).start()
        code = process.wait()
    finally:
        process.kill()
    if code not in (DONE, RUN_AGAIN) or "first_step" not in found:
        raise RuntimeError(f"main.py ended with {code}, {'after' if 'first_step' in found else 'before'} a first step.")
    return found | {"memory": memory.bytes / 1e6}


def page(results: dict) -> str:
    """The whole page in Markdown."""
    head = (
        f"{about.heading(results)} The default study in new workdirs, each stopped "
        f"{results['seconds_after_first_step']:g} s after its first training step; medians over rounds, with the range "
        f"in brackets. Seconds count from the start of the process. Memory is the largest sum, read every "
        f"{host_memory.EVERY:g} s until the stop, over the study's process and its workers, of their proportional set "
        f"sizes (/proc/PID/smaps_rollup, Linux alone); the study that it is read from is not timed."
    )
    lines = ["| figure | median (range) |", "|---|---|"]
    for name, title in TITLES.items():
        values = results["figures"][name]
        digits = 0 if name == "memory" else 2
        low, median, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
        lines.append(f"| {title} | {median} ({low}-{high}) |")
    return "\n\n".join(["# What a start takes", head, "\n".join(lines)]) + "\n"


if __name__ == "__main__":
    main()
