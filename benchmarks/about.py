"""What the figures of a benchmark depend on, and the files that they go to."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys

from train.hosts import slots


def describe(module: str, device: str) -> dict:
    """Command, machine, device, versions and XLA flags of a `python -m benchmarks.MODULE`; call once these are set."""
    return {
        "command": command(module),
        "cores": slots.threads(),
        "machine": cpu_name(),
        "device": device,
        "versions": {"python": platform.python_version(), "jax": importlib.metadata.version("jax")},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def command(module: str) -> str:
    return " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]])


def heading(results: dict) -> str:
    """What `describe` found, as the first sentence of a page."""
    versions = results["versions"]
    torch = f", PyTorch {versions['torch']}" if versions.get("torch") else ""
    return (
        f"{results['cores']} core(s) of {results['machine']} ({results['device']}); Python {versions['python']}, JAX "
        f"{versions['jax']}{torch}; XLA_FLAGS={results['xla_flags']!r}; `{results['command']}`."
    )


def write(output: pathlib.Path, results: dict, page: str) -> None:
    """The results as JSON and the page in Markdown, at the path and stem `output`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    output.with_suffix(".md").write_text(page)


def cpu_name() -> str:
    about = pathlib.Path("/proc/cpuinfo")
    for line in about.read_text().splitlines() if about.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
