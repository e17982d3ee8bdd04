"""Attention's price at every number of heads: ours, JAX's, Flax's and PyTorch's, in turns.

python -m benchmarks.attention --torch_python /tmp/torch/bin/python --output docs/benchmarks/attention
    all cores; writes attention.json, attention.md and attention.svg; --parts attention memory takes 7 minutes
python -m benchmarks.attention --cores 1 --parts step --d_model 64 128 --output docs/benchmarks/attention_one_core
    a process of one core, as a study's worker runs
python -m benchmarks.attention --parts step --d_model 64 --num_heads 4 --batch 32 --length 64 --layers 2 \\
        --output docs/benchmarks/one_replica
    one small replica: d_model 64, 4 heads, 32 documents of 64 tokens

Without --torch_python, PyTorch is left out. It is needed here alone and stays out of requirements.txt; install it with
    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0
"""

import argparse
import os
import pathlib
from unittest import mock

from benchmarks import about

VOCAB = 256


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--d_model", type=int, nargs="+", default=[64, 128, 512])
    arguments.add_argument("--num_heads", type=int, nargs="+", help="every power of two up to d_model if not given")
    arguments.add_argument("--parts", nargs="+", default=["attention", "step", "memory"])
    arguments.add_argument("--batch", type=int, default=16, help="documents; a quarter of it at d_model 512")
    arguments.add_argument("--length", type=int, default=256)
    arguments.add_argument("--layers", type=int, default=4, help="of a whole training step's model")
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--cores", type=int, default=0, help="cores this process may use; 0 for all")
    arguments.add_argument("--torch_python", help="a Python that can import torch")
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    args = arguments.parse_args()
    if args.cores:  # before JAX starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    run(args)


def run(args):
    from train.hosts import xla_flags

    xla_flags.use()
    import jax

    from benchmarks import peers, report, timing

    cores = len(os.sched_getaffinity(0))
    torch = peers.Torch(args.torch_python, cores) if args.torch_python else None
    limits = {"exp_per_s": timing.exp_rate(), "matmul_flops": timing.matmul_rate()}
    shape = {"length": args.length, "layers": args.layers, "rounds": args.rounds}
    results = about.describe("attention", jax.devices()[0].device_kind) | {"limits": limits, **shape}
    results["versions"]["torch"] = torch.version if torch else None
    results |= {"attention": [], "step": [], "memory": None}
    print(report.heading(results))
    for d_model in args.d_model:
        batch = args.batch // 4 if d_model >= 512 else args.batch
        powers_of_two = [2**i for i in range(d_model.bit_length())]
        for heads in [h for h in args.num_heads or powers_of_two if d_model % h == 0]:
            cell = {"batch": batch, "length": args.length, "heads": heads, "d_k": d_model // heads}
            if "attention" in args.parts:
                results["attention"].append(attention_cell(cell, args.rounds, torch, limits))
                print(report.attention_row(results["attention"][-1]), flush=True)
            if "step" in args.parts:
                results["step"].append(step_cell(cell, args.layers, args.rounds, torch))
                print(report.step_row(results["step"][-1]), flush=True)
    if "memory" in args.parts:
        results["memory"] = memory()
        print(report.memory_table(results["memory"]))
    if args.output:
        about.write(args.output, results, report.page(results, args.output.name))
        if results["attention"]:
            report.plot(results, args.output.with_suffix(".svg"))


def attention_cell(cell: dict, rounds: int, torch, limits: dict) -> dict:
    """Attention alone at one shape: milliseconds of each peer, compile seconds, temporaries, fraction of the limit."""
    import time

    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import peers, timing
    from mha.kernels import dispatch

    rng = np.random.default_rng(0)
    shape = (cell["batch"], cell["length"], cell["heads"], cell["d_k"])
    q, k, v, d_out = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(4))
    attends = {"ours": dispatch.attend, "jax_nn": peers.jax_nn, "flax": peers.flax_linen}
    forward, both, compile_s, temporaries = {}, {}, {}, {}
    for name, attend in attends.items():

        def only(q, k, v, attend=attend):
            return attend(q, k, v, scale=shape[-1] ** -0.5, causal=True)

        def with_gradients(q, k, v, d_out, only=only):
            out, pull = jax.vjp(only, q, k, v)
            return out, *pull(d_out)

        forward[name] = timing.timed(jax.jit(only), q, k, v)
        lowered = jax.jit(with_gradients).lower(q, k, v, d_out)
        start = time.perf_counter()
        compiled = lowered.compile()
        compile_s[name] = time.perf_counter() - start
        temporaries[name] = compiled.memory_analysis().temp_size_in_bytes
        both[name] = timing.timed(compiled, q, k, v, d_out)
    results = {}
    for name, runs, backward in (("forward", forward, False), ("both", both, True)):
        if torch:
            runs["torch"] = torch.case("attention", **cell, backward=backward)
        results[name] = timing.take_turns(runs, rounds, 1)
    pairs = cell["batch"] * cell["heads"] * cell["length"] * (cell["length"] + 1) / 2
    best = 3 * pairs / limits["exp_per_s"]  # one exponential a pair forward and two backward where they are not kept
    if cell["d_k"] > 1:  # two exponentials, and seven products of d_k multiply-adds
        best = 2 * pairs / limits["exp_per_s"] + 14 * cell["d_k"] * pairs / limits["matmul_flops"]
    shape = dict(d_k=cell["d_k"], length=cell["length"], dtype=jnp.float32)
    path = dispatch.choose("auto", backend=dispatch.backend(), **shape).path
    return (
        cell
        | results
        | {
            "path": path,
            "compile_s": compile_s,
            "temporaries": temporaries,
            "fraction_of_limit": best / results["both"]["ours"].median,
        }
    )


def training_step(cell: dict, attend, layers: int):
    """A compiled AdamW step of a Transformer whose attention is `attend`, and its arguments' shapes."""
    import jax
    import jax.numpy as jnp
    import optax

    from mha import transformer
    from mha.kernels import dispatch

    d_model = cell["heads"] * cell["d_k"]
    d_ff = (4 * d_model,) * layers
    config = transformer.ModelConfig(VOCAB, cell["length"], d_model, cell["heads"], cell["d_k"], d_ff)
    optimizer = optax.adamw(1e-3)
    tokens = jax.ShapeDtypeStruct((cell["batch"], cell["length"] + 1), jnp.int32)

    def step(params, state, tokens_BT1):
        def loss(params):
            logits_BTV, _ = transformer.Transformer(config).apply({"params": params}, tokens_BT1[:, :-1])
            return optax.softmax_cross_entropy(logits_BTV, jax.nn.one_hot(tokens_BT1[:, 1:], VOCAB)).mean()

        grads = jax.grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with mock.patch.object(dispatch, "attend", attend):
        one_row = jax.ShapeDtypeStruct((1, cell["length"]), jnp.int32)
        params = jax.eval_shape(transformer.Transformer(config).init, jax.random.key(0), one_row)["params"]
        state = jax.eval_shape(optimizer.init, params)
        return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, tokens).compile(), (params, state, tokens)


def step_cell(cell: dict, layers: int, rounds: int, torch) -> dict:
    """A whole training step at one shape: milliseconds of ours, of JAX's attention in ours, and of PyTorch eager."""
    import time

    import jax
    import jax.numpy as jnp

    from benchmarks import peers, timing
    from mha.kernels import dispatch

    runs, compile_s = {}, {}
    for name, attend in {"ours": dispatch.attend, "jax_nn": peers.jax_nn, "identity": peers.identity}.items():
        start = time.perf_counter()
        step, shapes = training_step(cell, attend, layers)
        compile_s[name] = time.perf_counter() - start
        held = list(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
        held[0] = jax.tree.map(lambda x: 0.02 * jax.random.normal(jax.random.key(0), x.shape), shapes[0])

        def advance(step=step, held=held):
            held[0], held[1] = step(*held)
            return held[0]

        runs[name] = timing.timed(advance)
    if torch:
        runs["torch"] = torch.case("step", **cell, vocab=VOCAB, layers=layers)
    return cell | {"step": timing.take_turns(runs, rounds, 2), "compile_s": compile_s}


def memory() -> dict:
    """Temporaries of a step at B=32, h=512, T=512 with attention and without."""
    from benchmarks import peers
    from mha.kernels import dispatch

    cell = {"batch": 32, "length": 512, "heads": 512, "d_k": 1}
    sizes = {}
    for name, attend in {"ours": dispatch.attend, "identity": peers.identity}.items():
        sizes[name] = training_step(cell, attend, layers=4)[0].memory_analysis().temp_size_in_bytes
    return cell | {"temporaries": sizes}


if __name__ == "__main__":
    main()
