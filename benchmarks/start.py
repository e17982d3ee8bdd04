"""What the default study takes: seconds to its first line, its first step and its end, and host memory.

python -m benchmarks.start --output docs/benchmarks/start     two minutes a round on two cores, ten for the whole study

Each round begins two studies of the default config, in new workdirs with one compile cache between them, empty before
the first, and asks each to stop half a minute after its first training step. One more, with an empty cache, goes on to
its end, and its memory is read meanwhile, so that reading slows no start; from /proc, so this runs on Linux alone.
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
from train.exit_codes import DONE, RUN_AGAIN

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 30.0  # that a study runs on after its first step, so that its workers fill the compile cache
TITLES = {
    "help": "`main.py --help`, s",
    "first_line": "first line on the screen, s",
    "first_step_cold": "first training step, empty compile cache, s",
    "first_step_warm": "first training step of a second study with that cache, s",
    "whole": "the whole study, empty compile cache, s",
    "memory": "largest memory of all its processes together, MB",
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    run(arguments.parse_args())


def run(args):
    from train.hosts import xla_flags
    from train.workdir import read_json

    xla_flags.use()
    figures = {name: [] for name in TITLES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for name, seconds in start(pathlib.Path(folder).resolve() / str(number)).items():
                figures[name].append(seconds)
        whole = study(pathlib.Path(folder) / "whole", pathlib.Path(folder) / "whole_cache", to_its_end=True)
        device = read_json(pathlib.Path(folder) / "whole" / "config.json")["device"]
    figures["whole"].append(whole["end"])
    figures["memory"].append(whole["memory"])
    results = about.describe("start", device) | {"figures": figures}
    text = page(results)
    print(text)
    if args.output:
        about.write(args.output, results, text)


def start(folder: pathlib.Path) -> dict[str, float]:
    """One round's figures."""
    began = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "main.py"), "--help"], stdout=subprocess.DEVNULL, check=True)
    helped = time.perf_counter() - began
    cold = study(folder / "cold", folder / "cache")
    warm = study(folder / "warm", folder / "cache")
    found = {"help": helped, "first_line": cold["first_line"], "first_step_cold": cold["first_step"]}
    return found | {"first_step_warm": warm["first_step"]}


def study(workdir: pathlib.Path, cache: pathlib.Path, to_its_end: bool = False) -> dict[str, float]:
    """Seconds from the start of the default study to its first line, first step and end, and megabytes if it goes on to
    its end."""
    command = [sys.executable, str(ROOT / "main.py"), f"--workdir={workdir}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    began, found = time.perf_counter(), {}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    memory = host_memory.Largest([process.pid])
    try:
        with memory if to_its_end else contextlib.nullcontext():
            for line in process.stdout:
                passed = time.perf_counter() - began
                found.setdefault("first_line", passed)
                if "first_step" not in found and ": step " in line:
                    found["first_step"] = passed
                    if not to_its_end:
                        threading.Timer(SECONDS, process.terminate).start()
            code = process.wait()
    finally:
        process.kill()
    if code not in (DONE, RUN_AGAIN) or "first_step" not in found:
        raise RuntimeError(f"main.py ended with {code}, {'after' if 'first_step' in found else 'before'} a first step.")
    return found | {"end": time.perf_counter() - began, "memory": memory.bytes / 1e6}


def page(results: dict) -> str:
    """The whole page in Markdown."""
    head = (
        f"{about.heading(results)} The default study in new workdirs; medians over rounds, with the range in brackets. "
        f"Seconds count from the start of the process. Memory is the largest sum, read every {host_memory.EVERY:g} s "
        f"to the study's end, over its process and its workers, of their proportional set sizes "
        f"(/proc/PID/smaps_rollup, Linux alone)."
    )
    lines = ["| figure | median (range) |", "|---|---|"]
    for name, title in TITLES.items():
        values = results["figures"][name]
        digits = 0 if name == "memory" else 2
        low, median, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
        lines.append(f"| {title} | {median} ({low}-{high}) |")
    return "\n\n".join(["# What the default study takes", head, "\n".join(lines)]) + "\n"


if __name__ == "__main__":
    main()
