"""What an accelerator reaches: the share of its peak in a training step, replicas side by side, attention at d_k = 1.

python -m benchmarks.accelerator --torch_python PYTHON --output docs/benchmarks/gpu

On whatever device JAX sees first, in bfloat16 but for the replicas, which are the default study's. --torch_python names
a Python whose PyTorch sees the same GPU. Small shapes run on a CPU too:
    python -m benchmarks.accelerator --d_model 32 --num_heads 4 --length 32 --batch 2 --replicas 2 --steps 2 --rounds 1
"""

import argparse
import pathlib
import tempfile

from benchmarks import about

# Dense bfloat16 FLOP/s by JAX's name of the device, from NVIDIA's data sheets; those of the H100 SXM and the H200 print
# 1,979 TFLOP/s, with the sparsity that doubles it.
PEAK = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
}
ONE_DEVICE = {"mesh.replicas": 1}  # of several


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--d_model", type=int, default=512, help="of the step and of attention, there d_model heads")
    arguments.add_argument("--num_heads", type=int, default=8, help="of the step")
    arguments.add_argument("--length", type=int, default=512, help="tokens of the step and of attention")
    arguments.add_argument("--batch", type=int, default=32, help="documents of the step and of attention")
    arguments.add_argument("--layers", type=int, default=2, help="of the step")
    arguments.add_argument("--replicas", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=64, help="of one measurement, 64 at most")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--torch_python", help="a Python that can import torch; without it PyTorch is left out")
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    run(arguments.parse_args())


def run(args):
    from train.hosts import slots, xla_flags

    xla_flags.use()
    slots.leave_gpus_to_workers()  # PyTorch takes its share of the same memory
    import jax

    from benchmarks import peers

    device = jax.devices()[0].device_kind
    results = about.describe("accelerator", device)
    torch = None
    if args.torch_python:
        torch_device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        torch = peers.Torch(args.torch_python, results["cores"], torch_device)
        results["versions"]["torch"] = torch.version
    timed = {"steps": args.steps, "rounds": args.rounds}
    shape = {"d_model": args.d_model, "length": args.length, "batch": args.batch}
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_in(pathlib.Path(folder))
        results["step"] = training_step(corpus, num_heads=args.num_heads, layers=args.layers, **shape, **timed)
        results["replicas"] = side_by_side(corpus, args.replicas, **timed)
    results["attention"] = attention(torch, rounds=args.rounds, **shape)
    text = page(results)
    print(text)
    if args.output:
        about.write(args.output, results, text)


def corpus_in(folder: pathlib.Path):
    """The default study's text, written into `folder`."""
    from configs import default
    from train.config import freeze
    from train.data import corpora

    return corpora.write_corpus(freeze(default.get_config().to_dict()).data, folder)


def training_step(corpus, d_model=512, num_heads=8, length=512, batch=32, layers=2, steps=64, rounds=7) -> dict:
    """A whole training step in bfloat16: seconds, FLOP/s of its matmuls, and their share of the device's peak (MFU)."""
    import jax

    from benchmarks import scale, timing
    from mha import budget

    fields = {"grid.d_model": (d_model,), "grid.num_heads": (num_heads,), "model.num_layers": layers}
    fields |= {"data.seq_len": length, "train.batch_size": batch, "model.dtype": "bfloat16"}
    program, _ = scale.program_of(corpus, 1, fields | ONE_DEVICE)
    found = timing.take_turns({"step": scale.steps(program, 1, steps)}, rounds, 10)["step"]
    flops = 3 * budget.flops_per_token(program.pack.model) * batch * length  # the backward pass costs two forward ones
    rate = flops * steps / found.median
    peak = PEAK.get(jax.devices()[0].device_kind)
    shape = {"d_model": d_model, "num_heads": num_heads, "length": length, "batch": batch, "layers": layers}
    seconds = [second / steps for second in found]
    return shape | {"seconds": seconds, "flops": flops, "flops_per_s": rate, "mfu": rate / peak if peak else None}


def side_by_side(corpus, replicas=64, d_model=64, num_heads=8, steps=64, rounds=7) -> dict:
    """Replica-steps a second of `replicas` in one program and of one alone, and how many times those of one."""
    from benchmarks import scale, timing

    fields = {"grid.d_model": (d_model,), "grid.num_heads": (num_heads,)}
    runs = {
        str(count): scale.steps(scale.program_of(corpus, count, fields | ONE_DEVICE)[0], count, steps)
        for count in (1, replicas)
    }
    found = timing.take_turns(runs, rounds, 10)
    rates = {
        count: [steps / seconds for seconds in (timing_.median, timing_.high, timing_.low)]
        for count, timing_ in found.items()
    }
    times = rates[str(replicas)][0] / rates["1"][0]
    return {"d_model": d_model, "num_heads": num_heads, "per_s": rates, "times_one": times}


def attention(torch, d_model=512, length=512, batch=32, rounds=7) -> dict:
    """Attention at d_k = 1 in bfloat16, forward and backward: seconds of ours and of PyTorch's (a peers.Torch)."""
    import jax
    import jax.numpy as jnp

    from benchmarks import timing
    from mha.kernels import dispatch

    cell = {"batch": batch, "length": length, "heads": d_model, "d_k": 1}
    keys = jax.random.split(jax.random.key(0), 4)
    arrays = [jax.random.normal(key, tuple(cell.values()), jnp.bfloat16) for key in keys]

    def both(q, k, v, d_out):
        out, pull = jax.vjp(lambda q, k, v: dispatch.attend(q, k, v, scale=1.0, causal=True), q, k, v)
        return out, *pull(d_out)

    runs = {"ours": timing.timed(jax.jit(both).lower(*arrays).compile(), *arrays)}
    if torch:
        runs["torch"] = torch.case("attention", **cell, backward=True, dtype="bfloat16")
    found = timing.take_turns(runs, rounds, 1)
    over = found["torch"].median / found["ours"].median if torch else None
    return cell | {"seconds": found, "torch_over_ours": over}


def milliseconds(seconds) -> str:
    """Median and range; `-` where a peer was not run."""
    if seconds is None:
        return "-"
    median, low, high = (f"{1e3 * second:.3g}" for second in seconds)
    return f"{median} ({low}-{high})"


def page(results: dict) -> str:
    """The whole page in Markdown."""
    step, replicas, attention = results["step"], results["replicas"], results["attention"]
    head = f"{about.heading(results)} Medians of turns in random order, with the range in brackets."
    share = "-" if step["mfu"] is None else f"{step['mfu']:.1%}"
    step_rows = [
        "| d_model | h | layers | T | B | step, ms | TFLOP/s | MFU |",
        "|" + "---|" * 8,
        f"| {step['d_model']} | {step['num_heads']} | {step['layers']} | {step['length']} | {step['batch']} "
        f"| {milliseconds(step['seconds'])} | {step['flops_per_s'] / 1e12:.3g} | {share} |",
    ]
    what = (
        "FLOPs are those of the matmuls, three times mha/budget.py's `flops_per_token`; MFU is their share of the "
        "device's dense bfloat16 peak, `-` where benchmarks/accelerator.py does not know it."
    )
    replica_rows = ["| replicas in one program | replica-steps a second | times one |", "|---|---|---|"]
    for count, (median, low, high) in replicas["per_s"].items():
        times = median / replicas["per_s"]["1"][0]
        replica_rows.append(f"| {count} | {median:,.1f} ({low:,.1f}-{high:,.1f}) | {times:.2f} |")
    seconds, over = attention["seconds"], attention["torch_over_ours"]
    attention_rows = [
        "| d_model | h | T | B | ours, ms | PyTorch, ms | PyTorch / ours |",
        "|" + "---|" * 7,
        f"| {attention['heads']} | {attention['heads']} | {attention['length']} | {attention['batch']} "
        f"| {milliseconds(seconds['ours'])} | {milliseconds(seconds.get('torch'))} "
        f"| {'-' if over is None else f'{over:.2f}'} |",
    ]
    parts = ["# What an accelerator reaches", head, "## A whole training step, bfloat16", "\n".join(step_rows), what]
    parts += [f"## Replicas side by side, d_model {replicas['d_model']}, h {replicas['num_heads']}, float32"]
    parts += ["\n".join(replica_rows), "## Attention at d_k = 1, forward and backward, bfloat16, causal"]
    return "\n\n".join([*parts, "\n".join(attention_rows)]) + "\n"


if __name__ == "__main__":
    main()
