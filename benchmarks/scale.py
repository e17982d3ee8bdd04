"""What a replica-step costs against the number of replicas, heads, d_model, T and workers, with fitted exponents.

python -m benchmarks.scale --output docs/benchmarks/scale     every axis in turn; --axes workers takes a minute

One axis varies at a time from the shape of --d_model, --num_heads, --seq_len and one replica; points of an axis run in
random order, medians. The exponent is the slope of log time against log value: 0 where a replica-step costs the same.
Workers are processes of one core each that train side by side; the point `here` is one process on all cores. Two axes
are choices: how a program maps over its replicas (`replica_map`), and whether it scans its layers (`layers`).
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks import about

AXES = {
    "replicas": (1, 2, 4, 8, 16, 32),
    "num_heads": (1, 2, 4, 8, 16, 32, 64),
    "d_model": (16, 32, 64, 128, 256),
    "seq_len": (32, 64, 128, 256),
}
CHOICES = {
    "replica_map": [
        {"replica_map": form, "replicas": 16, "d_model": d_model}
        for d_model in (16, 32, 64, 128)
        for form in ("scan", "vmap")
    ],
    "layers": [{"layers": form, "num_layers": count} for count in (2, 6, 12) for form in ("unrolled", "scanned")],
}
FIELDS = {  # of the config, by what varies
    "num_heads": "grid.num_heads",
    "d_model": "grid.d_model",
    "seq_len": "data.seq_len",
    "replica_map": "train.replica_map",
    "layers": "model.layers",
    "num_layers": "model.num_layers",
}
ALL = [*AXES, *CHOICES, "workers"]
STEPS = 8  # of a measurement
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--axes", nargs="+", default=ALL, choices=ALL)
    arguments.add_argument("--d_model", type=int, default=64)
    arguments.add_argument("--num_heads", type=int, default=8)
    arguments.add_argument("--seq_len", type=int, default=64)
    arguments.add_argument("--replica_map", default="auto", choices=["auto", "scan", "vmap"])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    arguments.add_argument("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    arguments.add_argument("--data", type=pathlib.Path, help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.worker >= 0:
        return work(args)
    with tempfile.TemporaryDirectory() as folder:
        args.data = pathlib.Path(folder) / "data"
        run(args)


def run(args):
    from configs import default
    from train.config import freeze
    from train.data import corpora
    from train.hosts import xla_flags

    xla_flags.use()
    corpora.write_corpus(freeze(default.get_config().to_dict()).data, args.data)
    import jax

    results = about.describe("scale", jax.devices()[0].device_kind) | {"axes": {}}
    for axis in args.axes:
        results["axes"][axis] = workers(args) if axis == "workers" else along(axis, args)
        print(table(axis, results["axes"][axis]), flush=True)
    if args.output:
        about.write(args.output, results, page(results))


def program_of(corpus, replicas: int, fields: dict):
    """A compiled program of the default study's steps in one cell, one replica a seed, with `fields` changed, and its
    config."""
    from configs import default
    from train import grid
    from train.config import freeze
    from train.data import corpora
    from train.run import feed, packs
    from train.run.program import Program

    one_rate = {"grid.tuning_seeds": (), "grid.extensions": 0, "grid.learning_rates": (0.01,)}
    values = default.get_config()
    values.update_from_flattened_dict(one_rate | {"grid.init_seeds": tuple(range(replicas))} | fields)
    config = freeze(values.to_dict())
    (cell,) = grid.cells_of(config, corpora.VOCAB_SIZE)
    model, replica_map = packs.resolve(cell, config)
    pack = packs.Pack(0, model, cell.replicas, replica_map, packs.environment(config))
    return Program(pack, config, feed.of(config, corpus, cell.dose)), config


def point(args, **changed):
    """The program at one point of an axis, and the number of its replicas."""
    from train.data import corpora

    shape = {name: getattr(args, name) for name in ("num_heads", "d_model", "seq_len", "replica_map")} | changed
    replicas = shape.pop("replicas", 1)
    fields = {FIELDS[name]: (value,) if FIELDS[name].startswith("grid.") else value for name, value in shape.items()}
    return program_of(corpora.open_corpus(args.data), replicas, fields)[0], replicas


def steps(program, replicas: int, count: int = STEPS):
    """A run of `timing.take_turns`: seconds of `count` steps of one replica, beside the others in the program."""
    import time

    import jax

    held = [jax.block_until_ready(program.init())]

    def once() -> float:
        began = time.perf_counter()
        held[0], metrics = program.run(held[0], 0, count)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - began) / replicas

    return once


def along(axis: str, args) -> dict:
    """Milliseconds of a replica-step at each point of `axis`, the seconds that its program took to compile, and, where
    the points are numbers, the exponent."""
    from benchmarks import timing

    if axis in CHOICES:
        points = {", ".join(map(_words, changed.items())): changed for changed in CHOICES[axis]}
    else:
        largest = args.d_model if axis == "num_heads" else max(AXES[axis])
        values = [value for value in AXES[axis] if value <= largest and (axis != "d_model" or value >= args.num_heads)]
        points = {str(value): {axis: value} for value in values}
    programs = {name: point(args, **changed) for name, changed in points.items()}
    runs = {name: steps(program, replicas) for name, (program, replicas) in programs.items()}
    found = timing.take_turns(runs, args.rounds, 10)
    times = {name: [1e3 * seconds / STEPS for seconds in timing_] for name, timing_ in found.items()}
    slope = None if axis in CHOICES else exponent(values, [times[str(value)][0] for value in values])
    compiled = {name: program.compile_seconds for name, (program, _) in programs.items()}
    return {"ms": times, "exponent": slope, "compile_seconds": compiled}


def _words(changed: tuple[str, int | str]) -> str:
    name, value = changed
    return value if isinstance(value, str) else f"{name} {value}"


def exponent(values: list[float], times: list[float]) -> float:
    """The least-squares slope of log time against log value."""
    import numpy as np

    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def workers(args) -> dict:
    """Milliseconds a replica-step of all workers together, for each number of them and for one process on all cores;
    medians over rounds in which each number takes its turn."""
    import random

    from train.hosts import slots

    count = slots.count("cpu", 1)
    numbers = [0, *(number for number in (1, 2, 4, 8, 16, 32, 64) if number <= count)]
    taken = {number: [] for number in numbers}
    for _ in range(max(1, args.rounds // 2)):
        random.shuffle(numbers)
        for number in numbers:
            taken[number].append(side_by_side(args, number))
    times = {str(number) if number else "here": triple(found) for number, found in sorted(taken.items())}
    counted = [number for number in sorted(taken) if number]
    slope = exponent(counted, [times[str(number)][0] for number in counted]) if len(counted) > 1 else None
    return {"ms": times, "exponent": slope}


def triple(taken: list[float]) -> list[float]:
    return [statistics.median(taken), min(taken), max(taken)]


def side_by_side(args, number: int) -> float:
    """Milliseconds between two replica-steps of `number` workers; 0: one process on all cores."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--d_model={args.d_model}", f"--num_heads={args.num_heads}"]
    command += [f"--seq_len={args.seq_len}", f"--replica_map={args.replica_map}", f"--data={args.data}"]
    running = [
        subprocess.Popen(
            [*command, f"--worker={worker}"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for worker in (range(1, number + 1) if number else (0,))
    ]
    for process in running:
        process.stdout.readline()  # compiled
    for process in running:
        process.stdin.write("begin\n")
        process.stdin.flush()
    rates = [float(process.communicate()[0].split()[-1]) for process in running]
    return 1e3 / sum(rates)


def work(args) -> None:
    """One of the processes of `side_by_side`: prints replica-steps a second while the others run."""
    import time

    from train.hosts import slots, xla_flags

    if args.worker:  # worker 1 takes the first core
        slots.take(args.worker - 1, "cpu")
    xla_flags.use()
    once = steps(*point(args), count=1)
    once()
    print("ready", flush=True)
    sys.stdin.readline()
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < 5:
        once()
        done += 1
    print(done / passed, flush=True)


def table(axis: str, found: dict) -> str:
    compiled = found.get("compile_seconds")
    lines = [f"| {axis} | ms a replica-step (range) |" + " compile, s |" * bool(compiled)]
    lines += ["|" + "---|" * (3 if compiled else 2)]
    for value, (median, low, high) in found["ms"].items():
        last = f" {compiled[value]:.1f} |" if compiled else ""
        lines.append(f"| {value} | {median:.2f} ({low:.2f}-{high:.2f}) |{last}")
    slope = "" if found["exponent"] is None else f"\n\nExponent: {found['exponent']:.2f}."
    return "\n".join(lines) + slope


def page(results: dict) -> str:
    """The whole page in Markdown."""
    head = (
        f"{about.heading(results)} One axis varies at a time; medians of points in random order. The exponent is the "
        f"slope of log time against log value."
    )
    parts = [f"## {axis}\n\n{table(axis, found)}" for axis, found in results["axes"].items()]
    return "\n\n".join(["# What a replica-step costs", head, *parts]) + "\n"


if __name__ == "__main__":
    main()
