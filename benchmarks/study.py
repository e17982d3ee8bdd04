"""A whole study against its peers: the same cells, rates, seeds, data and steps, from a start to the same table.

python -m benchmarks.study --torch_python /tmp/torch/bin/python --output docs/benchmarks/study
    a share of the default grid; all: --d_model 32 64 --num_heads 0 --rates .01 .02 .04 --seeds 0 1 2 --steps 500

ours         python main.py, as it launches cells here; up to results/replicas.csv, its timing pass included
one_by_one   the same study, its table included, with a replica a program, one after another in one process
torch        PyTorch eager: scaled_dot_product_attention, fused AdamW, all cores in one process
torch_pinned the same in a process a core, each with its part of the replicas
torch_compile the same as torch under torch.compile
flax         a plain Flax/Optax loop as in Flax's examples, a jitted step a replica

Peers begin with nothing compiled, run in random order, and evaluate what they trained on the test split (windows of
seq_len in a row, where ours counts each byte of each document once). --torch_python names a Python that has PyTorch:
    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 numpy
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from benchmarks import about, host_memory

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ("ours", "one_by_one", "torch", "torch_pinned", "torch_compile", "flax")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    arguments.add_argument("--d_model", type=int, nargs="+", default=[64])
    arguments.add_argument("--num_heads", type=int, nargs="+", default=[1, 8, 64], help="0: those of the default study")
    arguments.add_argument("--rates", type=float, nargs="+", default=[0.02])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--torch_python", help="a Python that can import torch; without it PyTorch is left out")
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    args = arguments.parse_args()
    names = [name for name in args.peers if args.torch_python or not name.startswith("torch")]
    from benchmarks import study_report

    with tempfile.TemporaryDirectory() as folder:
        results = describe(args) | {"machine": about.cpu_name(), "peers": {name: [] for name in names}}
        task = write_task(args, pathlib.Path(folder))
        results["replica_steps"] = len(task["runs"]) * task["steps"]
        results["tokens"] = results["replica_steps"] * task["batch"] * task["length"]
        forward = sum(run["flops_per_token"] for run in task["runs"]) // len(task["runs"])
        results["flops"] = 3 * forward * results["tokens"]
        for _ in range(args.rounds):
            random.shuffle(names)  # what ran before leaves the processor warm
            for name in names:
                results["peers"][name].append(run(name, args, pathlib.Path(folder)))
                print(study_report.line(name, results["peers"][name][-1]), flush=True)
    page = study_report.page(results)
    print(page)
    if args.output:
        about.write(args.output, results, page)
        study_report.plot(results, args.output.with_suffix(".svg"))


def describe(args) -> dict:
    """What the figures depend on."""
    import jax

    from train.hosts import slots, xla_flags
    from train.workdir import versions

    torch = None
    if args.torch_python:
        ask = [args.torch_python, "-c", "import torch; print(torch.__version__)"]
        torch = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    given = os.environ.get("XLA_FLAGS", "")
    xla_flags.use()
    ours = os.environ["XLA_FLAGS"]
    os.environ["XLA_FLAGS"] = given  # the peers go without
    return {
        "command": about.command("study"),
        "cores": slots.threads(),
        "device": jax.devices()[0].device_kind,
        "versions": versions() | {"torch": torch},
        "xla_flags": ours,
    }


def fields(args) -> list[str]:
    """The study as flags of main.py."""
    words = {
        "grid.d_model": args.d_model,
        "grid.num_heads": [] if args.num_heads == [0] else args.num_heads,
        "grid.learning_rates": args.rates,
        "grid.init_seeds": args.seeds,
        "grid.tuning_seeds": [],
        "grid.extensions": [0],
        "train.steps": [args.steps],
        "train.warmup_steps": [min(50, args.steps // 2)],
        "claims.launches": [0],
    }
    return [f"--config.{name}={','.join(map(str, values)) or '()'}" for name, values in words.items()]


def write_task(args, folder: pathlib.Path) -> dict:
    """task.json, the tokens and each seed's batches for the peers, which read nothing else."""
    import numpy as np

    import main as headroom
    from mha import budget
    from train import grid
    from train.config import freeze
    from train.data import corpora
    from train.data.batches import Batches

    config = freeze(headroom.parse(fields(args))[0])
    corpus = corpora.write_corpus(config.data, folder / "data")
    cells, train, length = grid.cells_of(config, corpora.VOCAB_SIZE), config.train, config.data.seq_len
    for split in ("train", "test"):
        np.save(folder / f"{split}.npy", np.asarray(corpus.tokens_of(split)))
    for seed in args.seeds:
        order = Batches(corpus.num_windows("train", length), train.batch_size, length, seed)
        np.save(folder / f"starts_{seed}.npy", order.starts(0, train.steps))
    task = {
        "flags": fields(args),
        "vocab": corpora.VOCAB_SIZE,
        "bos": corpus.bos,
        "length": length,
        "batch": train.batch_size,
        "eval_batch": config.eval.batch_size,
        "steps": train.steps,
        "warmup": train.warmup_steps,
        "clip": train.clip_norm,
        "weight_decay": train.weight_decay,
        "log_every": train.log_every,
        "runs": [
            {
                "cell": cell.name,
                "d_model": cell.model.d_model,
                "heads": cell.model.num_heads,
                "d_ff": cell.model.d_ff,
                "flops_per_token": budget.flops_per_token(cell.model),
                "rate": replica.learning_rate,
                "seed": replica.init_seed,
            }
            for cell in cells
            for replica in cell.replicas
        ],
    }
    (folder / "task.json").write_text(json.dumps(task))
    return task


def run(name: str, args, folder: pathlib.Path) -> dict:
    """Seconds from a peer's start to its table, of that the compiling, mean test loss, bytes of memory."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": scratch, "TORCHINDUCTOR_CACHE_DIR": scratch}
        if name in ("ours", "one_by_one"):
            return ours(name, args, pathlib.Path(scratch) / "workdir", environment)
        parts = [[]]
        if name.startswith("torch"):
            script = str(ROOT / "benchmarks" / "torch_study.py")
            cores = sorted(os.sched_getaffinity(0))
            if name == "torch_pinned":
                parts = [[str(core), str(index), str(len(cores))] for index, core in enumerate(cores)]
            command = [args.torch_python, script, "compile" if name == "torch_compile" else "eager"]
        else:
            command = [sys.executable, "-m", "benchmarks.flax_study"]
        began = time.perf_counter()
        with contextlib.ExitStack() as ended:
            running = [
                ended.enter_context(_killed_at_last([*command, str(folder), *part], cwd=ROOT, env=environment))
                for part in parts
            ]
            memory = ended.enter_context(host_memory.Largest([process.pid for process in running]))
            said = [process.communicate()[0] for process in running]
        seconds = time.perf_counter() - began
        if any(process.returncode for process in running):
            raise RuntimeError(f"{name} ended with {[process.returncode for process in running]}.")
        found = [json.loads(text.splitlines()[-1]) for text in said]
        losses = [loss for one in found for loss in one["losses"]]
        compiling = sum(one["compile_seconds"] for one in found)
        found = {
            "seconds": seconds,
            "compile_seconds": compiling,
            "loss": sum(losses) / len(losses),
            "first_step": None,
        }
        return found | {"memory": memory.bytes}


@contextlib.contextmanager
def _killed_at_last(command: list[str], **keywords):
    """A process that does not outlive the block, with its standard output as text."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **keywords)
    try:
        yield process
        process.wait()
    finally:
        process.kill()


ONE_BY_ONE = """
import sys
import main
from train.hosts import memory
memory.replicas_that_fit = lambda *_: 1
sys.exit(main.main([*sys.argv[1:], "--launcher=here"]))
"""


def ours(name: str, args, workdir: pathlib.Path, environment: dict) -> dict:
    """`python main.py`; its table is there when results/replicas.csv is."""
    import pandas as pd

    program = [str(ROOT / "main.py")] if name == "ours" else ["-c", ONE_BY_ONE]
    command = [sys.executable, *program, *fields(args), f"--workdir={workdir}"]
    start, began = time.time(), time.perf_counter()
    first_step = None
    with (
        _killed_at_last(command, cwd=ROOT, env=environment) as process,
        host_memory.Largest([process.pid]) as memory,
    ):
        for line in process.stdout:
            if first_step is None and ": step " in line:
                first_step = time.perf_counter() - began
    if process.wait():
        raise RuntimeError(f"{name} ended with {process.returncode}.")
    table = workdir / "results" / "replicas.csv"
    rows = pd.read_csv(table)
    test = rows[rows.split == "test"]
    return {
        "seconds": table.stat().st_mtime - start,
        "compile_seconds": float(test.groupby("cell").compile_seconds.max().sum()),
        "loss": float(test.loss.mean()),
        "first_step": first_step,
        "memory": memory.bytes,
    }


if __name__ == "__main__":
    main()
