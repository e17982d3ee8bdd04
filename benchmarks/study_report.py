"""Table and plot of benchmarks/study.py."""

import pathlib
import statistics

TITLES = {
    "ours": "ours",
    "one_by_one": "ours, a replica at a time",
    "torch": "PyTorch eager",
    "torch_pinned": "PyTorch eager, a process a core",
    "torch_compile": "PyTorch, torch.compile",
    "flax": "plain Flax/Optax loop",
}


def line(name: str, run: dict) -> str:
    return (
        f"{name}: {run['seconds']:.1f} s, {run['compile_seconds']:.1f} s compiling, {run['memory'] / 1e6:,.0f} MB, "
        f"test loss {run['loss']:.3f}"
    )


def page(results: dict) -> str:
    """The whole page in Markdown."""
    versions = results["versions"]
    torch = f", PyTorch {versions['torch']}" if versions["torch"] else ""
    head = (
        f"{results['cores']} core(s) of {results['machine']} ({results['device']}); Python {versions['python']}, JAX "
        f"{versions['jax']}, Flax {versions['flax']}{torch}; XLA_FLAGS={results['xla_flags']!r}.\n\n"
        f"`{results['command']}`: {results['replica_steps']:,} replica-steps, {results['tokens']:,} training tokens. "
        f"Seconds from a process's start to its table of test losses, compiling included: medians over runs in random "
        f"order, with the range in brackets. Compile seconds are added up over processes. Memory is the largest sum "
        f"over a peer's processes, to their end, of proportional set sizes (/proc/PID/smaps_rollup). On a shared "
        f"machine only the ratios mean anything."
    )
    rows = [
        "| peer | seconds to the table | of it compiling | training tokens a second | GFLOP/s of matmuls | times ours "
        "| largest memory, MB | mean test loss, nats |",
        "|" + "---|" * 8,
    ]
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in results["peers"].items()}
    for name in (name for name in TITLES if name in medians):
        runs, median = results["peers"][name], medians[name]
        times = [run["seconds"] for run in runs]
        columns = [TITLES[name], f"{median:.1f} ({min(times):.1f}-{max(times):.1f})"]
        columns += [f"{statistics.median(run['compile_seconds'] for run in runs):.1f}"]
        columns += [f"{results['tokens'] / median:,.0f}", f"{results['flops'] / median / 1e9:.1f}"]
        columns += [f"{median / medians['ours']:.2f}" if "ours" in medians else "-"]
        columns += [f"{max(run['memory'] for run in runs) / 1e6:,.0f}"]
        columns += [f"{statistics.median(run['loss'] for run in runs):.3f}"]
        rows.append("| " + " | ".join(columns) + " |")
    return "\n\n".join(["# A study against its peers", head, "\n".join(rows)]) + "\n"


def plot(results: dict, path: pathlib.Path) -> None:
    """Seconds to the table, a bar a peer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in TITLES if name in results["peers"]][::-1]
    times = [[run["seconds"] for run in results["peers"][name]] for name in names]
    medians = [statistics.median(taken) for taken in times]
    ranges = [
        [median - min(taken) for median, taken in zip(medians, times, strict=True)],
        [max(taken) - median for median, taken in zip(medians, times, strict=True)],
    ]
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(names) + 1), layout="constrained")
    axis.barh([TITLES[name] for name in names], medians, xerr=ranges, color="tab:blue")
    axis.set_xlabel("seconds to the same table, compiling included")
    figure.savefig(path)
