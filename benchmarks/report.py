"""Tables and plot of benchmarks/attention.py."""

import pathlib

TITLES = {"ours": "ours", "jax_nn": "jax.nn", "flax": "Flax", "torch": "PyTorch", "identity": "no attention"}


def heading(results: dict) -> str:
    limits, versions = results["limits"], results["versions"]
    torch = f"PyTorch {versions['torch']}" if versions["torch"] else "PyTorch not measured (--torch_python)"
    return (
        f"{results['cores']} core(s) of {results['machine']}; Python {versions['python']}, JAX {versions['jax']}, "
        f"{torch}; XLA_FLAGS={results['xla_flags']!r}; limits {limits['exp_per_s'] / 1e9:.2f} G exp/s, "
        f"{limits['matmul_flops'] / 1e9:.0f} GFLOP/s; `{results['command']}`"
    )


def milliseconds(timing) -> str:
    """Median and range; `-` where a peer was not run."""
    if timing is None:
        return "-"
    median, low, high = (1e3 * seconds for seconds in timing)
    digits = 1 if median < 100 else 0
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def times(timing, times_of: str, over: str) -> str:
    if over not in timing:
        return "-"
    return f"{timing[over][0] / timing[times_of][0]:.2f}"


def attention_row(cell: dict) -> str:
    forward, both, megabyte = cell["forward"], cell["both"], 1e6
    columns = [cell["heads"] * cell["d_k"], cell["batch"], cell["heads"], cell["d_k"], cell["path"]]
    columns += [milliseconds(forward.get(name)) for name in ("ours", "jax_nn", "torch")]
    columns += [milliseconds(both.get(name)) for name in ("ours", "jax_nn", "flax", "torch")]
    columns += [times(both, "ours", "jax_nn"), times(both, "ours", "torch")]
    columns += [f"{cell['compile_s'][name]:.1f}" for name in ("ours", "jax_nn")]
    columns += [f"{cell['temporaries'][name] / megabyte:.0f}" for name in ("ours", "jax_nn")]
    columns += [f"{cell['fraction_of_limit']:.2f}"]
    return "| " + " | ".join(map(str, columns)) + " |"


ATTENTION_HEAD = (
    "| d_model | B | h | d_k | path | forward, ms: ours | jax.nn | PyTorch | forward + backward, ms: ours | jax.nn "
    "| Flax | PyTorch | jax.nn / ours | PyTorch / ours | compile, s: ours | jax.nn | temporaries, MB: ours | jax.nn "
    "| fraction of limit |\n|" + "---|" * 19
)


def step_row(cell: dict) -> str:
    step = cell["step"]
    columns = [cell["heads"] * cell["d_k"], cell["batch"], cell["heads"], cell["d_k"]]
    columns += [milliseconds(step.get(name)) for name in ("ours", "identity", "jax_nn", "torch")]
    columns += [times(step, "ours", "jax_nn"), times(step, "ours", "torch"), f"{cell['compile_s']['ours']:.1f}"]
    columns += [f"{cell['compile_s']['identity']:.1f}"]
    return "| " + " | ".join(map(str, columns)) + " |"


STEP_HEAD = (
    "| d_model | B | h | d_k | step, ms: ours | no attention | jax.nn | PyTorch | jax.nn / ours | PyTorch / ours "
    "| compile, s: ours | no attention |\n|" + "---|" * 12
)


def price_table(cells: list[dict]) -> str:
    """The step at d_k = 1 over the step at h = 1, for each d_model that has both."""
    lines = ["| d_model | ours | jax.nn | PyTorch |", "|---|---|---|---|"]
    for d_model in sorted({cell["heads"] * cell["d_k"] for cell in cells}):
        ends = {cell["heads"]: cell["step"] for cell in cells if cell["heads"] * cell["d_k"] == d_model}
        if {1, d_model} <= set(ends):
            columns = [
                f"{ends[d_model][name][0] / ends[1][name][0]:.2f}" if name in ends[1] else "-"
                for name in ("ours", "jax_nn", "torch")
            ]
            lines.append(f"| {d_model} | " + " | ".join(columns) + " |")
    return "\n".join(lines)


def memory_table(cell: dict) -> str:
    ours, identity = (cell["temporaries"][name] / 1e6 for name in ("ours", "identity"))
    lines = ["| with attention, MB | without, MB | added, MB |", "|---|---|---|"]
    return "\n".join([*lines, f"| {ours:.0f} | {identity:.0f} | {ours - identity:.0f} |"])


def page(results: dict, stem: str) -> str:
    """The whole page in Markdown."""
    parts = ["# Attention at every number of heads", heading(results) + "."]
    parts.append(
        f"Float32, causal, T={results['length']}. Milliseconds are medians of at least {results['rounds']} rounds "
        f"(three where one takes over a second) in which the peers run in random order, with the range in brackets; on "
        f"a shared machine only the ratios of one row mean anything. Temporaries are those of the compiled forward and "
        f"backward program. The limit is the time that the exponentials and matmuls of the visible pairs alone take at "
        f"this machine's measured rates."
    )
    if results["attention"]:
        parts += ["## Attention alone", "\n".join([ATTENTION_HEAD, *map(attention_row, results["attention"])])]
        parts.append(f"![Forward and backward against the number of heads]({stem}.svg)")
    if results["step"]:
        parts += [f"## A whole training step ({results['layers']} layers, AdamW)"]
        parts += ["\n".join([STEP_HEAD, *map(step_row, results["step"])])]
        if any(cell["d_k"] == 1 for cell in results["step"]):
            parts += ["Step at d_k = 1 over step at h = 1:", price_table(results["step"])]
    if results["memory"]:
        parts += ["## Temporaries of a step at B=32, h=512, d_k=1, T=512", memory_table(results["memory"])]
    return "\n\n".join(parts) + "\n"


def plot(results: dict, path: pathlib.Path) -> None:
    """Forward and backward time against the number of heads, one panel a d_model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    widths = sorted({cell["heads"] * cell["d_k"] for cell in results["attention"]})
    figure, axes = plt.subplots(1, len(widths), figsize=(4 * len(widths), 3.4), squeeze=False, layout="constrained")
    for axis, d_model in zip(axes[0], widths, strict=True):
        cells = [cell for cell in results["attention"] if cell["heads"] * cell["d_k"] == d_model]
        for name in ("jax_nn", "flax", "torch", "ours"):
            if name in cells[0]["both"]:
                heads = [cell["heads"] for cell in cells]
                axis.loglog(heads, [1e3 * cell["both"][name][0] for cell in cells], marker="o", label=TITLES[name])
        axis.set(title=f"d_model {d_model}, B={cells[0]['batch']}", xlabel="heads")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("forward + backward, ms")
    axes[0][0].legend()
    figure.savefig(path)
