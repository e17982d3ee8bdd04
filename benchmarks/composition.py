"""Time and memory of all composition scores of one model: `python -m benchmarks.composition`.

Writes docs/benchmarks/composition.md and .json: a model of 4 layers x 64 heads at d_model 512 (d_k = 8), its 196,608
pairs and kinds, against random rotations; the memory is the largest that the process took beyond what it held before.
"""

import argparse
import pathlib
import resource
import statistics
import time

import numpy as np

from benchmarks import about
from eval.heads.composition import scores

LAYERS, HEADS, D_MODEL = 4, 64, 512
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/benchmarks/composition"))
    params = _model(np.random.default_rng(0))
    before, seconds = _largest_bytes(), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = scores.compositions(params)
        seconds.append(time.perf_counter() - start)
    results = about.describe("composition", "cpu")
    results |= {"pairs": found.p.size, "seconds": seconds, "bytes": _largest_bytes() - before}
    about.write(parser.parse_args().output, results, _page(results))


def _model(random: np.random.Generator) -> dict:
    """Weights as drawn, of the attention alone."""
    d_k, params = D_MODEL // HEADS, {}
    for layer in range(LAYERS):
        attention = {name: random.normal(size=(D_MODEL, HEADS, d_k)) for name in ("w_q", "w_k", "w_v")}
        attention["w_o"] = random.normal(size=(HEADS, d_k, D_MODEL))
        params[f"block_{layer}"] = {"attention": attention, "norm_attention": {"scale": np.ones(D_MODEL)}}
    return params


def _largest_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux


def _page(results: dict) -> str:
    seconds = results["seconds"]
    return (
        f"# Composition scores\n\n{about.heading(results)} {LAYERS} layers x {HEADS} heads, d_model {D_MODEL}: "
        f"{results['pairs']:,} scores of pairs and kinds, each with its z and p against random rotations; median of "
        f"{len(seconds)} rounds, with the range in brackets.\n\n| figure | value |\n|---|---|\n"
        f"| time, s | {statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f}) |\n"
        f"| memory beyond the weights, MB | {results['bytes'] / 1e6:,.0f} |\n"
    )


if __name__ == "__main__":
    main()
