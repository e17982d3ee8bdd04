"""What the roles of heads cost: one pass that sums up attention, against plain forward passes of the same model.

python -m benchmarks.roles --output docs/benchmarks/roles
    two minutes; writes roles.json and roles.md

4 layers of 8 heads, d_model 256, 500 texts of 256 tokens (64 queries with induction links in each), in turns; and the
largest memory of a process that sums up one layer of 64 heads at T = 512.
"""

import argparse
import functools
import pathlib
import resource
import subprocess
import sys

import jax
import numpy as np

from benchmarks import about, timing
from eval.heads.roles import sums, texts
from eval.heads.roles.texts import Texts
from mha.transformer import ModelConfig, Transformer

MODEL = ModelConfig(257, 256, 256, 8, 32, (1024,) * 4)
LARGE = ModelConfig(257, 512, 512, 64, 8, (2048,))
BATCH = 8


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--texts", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    arguments.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.memory:
        seen, params = drawn(LARGE, 64)
        sums.of_model(LARGE, params, seen, sums.Profile())
        return print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    results = about.describe("roles", jax.devices()[0].device_kind) | measured(args.texts, args.rounds)
    found = subprocess.run([sys.executable, "-m", "benchmarks.roles", "--memory"], capture_output=True, text=True)
    results["memory_bytes"] = int(found.stdout.split()[-1])
    text = page(results)
    print(text)
    if args.output:
        about.write(args.output, results, text)


def drawn(model: ModelConfig, count: int) -> tuple[Texts, dict]:
    """Random texts with runs that return, and a model as it is initialised."""
    seen = texts.repeats(np.arange(256), count, model.seq_len, 256, 0)
    return seen, Transformer(model).init(jax.random.key(0), seen.tokens[:1, :-1])["params"]


def measured(count: int, rounds: int) -> dict:
    seen, params = drawn(MODEL, count)
    forward = jax.jit(lambda params, tokens_BT: Transformer(MODEL).apply({"params": params}, tokens_BT)[0].sum())
    tokens = np.resize(seen.tokens[:, :-1], (-(-count // BATCH) * BATCH, MODEL.seq_len))

    def plain(count: int):
        return [forward(params, tokens[first : first + BATCH]) for first in range(0, count, BATCH)]

    fewer = seen.some(count // 10)
    runs = {
        "forward": functools.partial(plain, count),
        "pass": functools.partial(sums.of_model, MODEL, params, seen, sums.Profile()),
        "forward of a tenth": functools.partial(plain, count // 10),
        "untrained": functools.partial(sums.of_model, MODEL, params, fewer),
    }
    taken = timing.take_turns({name: timing.timed(run) for name, run in runs.items()}, rounds, 0.0)
    return {"texts": count, "seconds": {name: list(each) for name, each in taken.items()}}


def page(results: dict) -> str:
    seconds = {name: each[0] for name, each in results["seconds"].items()}
    return "\n".join(
        [
            "# What the roles of heads cost",
            "",
            about.heading(results),
            "",
            f"{MODEL.num_layers} layers of {MODEL.num_heads} heads, d_model {MODEL.d_model}, {results['texts']} texts "
            f"of {MODEL.seq_len} tokens; medians, in turns.",
            "",
            "| | seconds | forward passes |",
            "|---|---|---|",
            f"| a plain forward pass | {seconds['forward']:.2f} | 1 |",
            f"| all sums of roles and profile | {seconds['pass']:.2f} | {seconds['pass'] / seconds['forward']:.2f} |",
            f"| a forward pass over a tenth | {seconds['forward of a tenth']:.2f} | 1 |",
            f"| sums of an untrained model over a tenth | {seconds['untrained']:.2f} | "
            f"{seconds['untrained'] / seconds['forward of a tenth']:.2f} |",
            "",
            f"Largest memory of a process that sums up one layer of {LARGE.num_heads} heads at T = {LARGE.seq_len}: "
            f"{results['memory_bytes'] / 1e6:.0f} MB.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
