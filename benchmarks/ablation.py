"""Closing every head alone: the engine against a forward pass a head, and against TransformerLens.

Run: python -m benchmarks.ablation [--lens PYTHON] [--output docs/benchmarks/ablation]

Same weights, windows and losses; peers take turns, so that the machine's other work slows all alike. `--lens` is the
Python of an environment with TransformerLens and PyTorch, which this project does not need.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import about
from eval.heads.importance import engine
from mha.kernels import dispatch
from mha.transformer import ModelConfig, Transformer
from train.hosts import xla_flags

SHAPES = {"6 layers x 8 heads": (6, 8), "4 x 16": (4, 16), "2 x 64": (2, 64)}
D_MODEL, LENGTH, WINDOWS, ROUNDS = 64, 64, 32, 5
LENS = pathlib.Path(__file__).with_name("lens_peer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lens", type=pathlib.Path, help="Python with TransformerLens")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/benchmarks/ablation"))
    args = parser.parse_args()
    xla_flags.use()
    results = about.describe("ablation", jax.devices()[0].device_kind)
    results["shapes"] = {name: compare(*shape, args.lens, results["cores"]) for name, shape in SHAPES.items()}
    about.write(args.output, results, page(results))


def compare(layers: int, heads: int, lens: pathlib.Path | None, cores: int) -> dict:
    """Median seconds of each peer over ROUNDS in turn, and the largest relative difference of its losses."""
    model, params, columns = made(layers, heads)
    tokens, *rest = columns
    size = engine.windows_of(model)
    group = engine.group_of(model, size)
    batches = [tuple(column[at : at + size] for column in columns) for at in range(0, WINDOWS, size)]

    def ours() -> np.ndarray:
        parts = [engine.closed_losses(model, params, batch, group=group)[1] for batch in batches]
        return np.concatenate([np.asarray(part) for part in parts], axis=-1)

    def a_forward_a_head() -> np.ndarray:
        found = np.empty((layers, heads, WINDOWS))
        for layer, head in np.ndindex(layers, heads):
            gates = np.ones((layers, heads), np.float32)
            gates[layer, head] = 0
            found[layer, head] = engine.losses(model, params, columns, jnp.asarray(gates))
        return found

    peers = {"engine": timed(ours), "a forward pass a head": timed(a_forward_a_head)}
    process = None
    if lens:
        path = pathlib.Path("/tmp") / f"lens_{layers}_{heads}.npz"
        np.savez(path, **for_lens(model, params, tokens))
        command = [str(lens), str(LENS), str(path), str(cores)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def other() -> tuple[float, np.ndarray]:
            process.stdin.write("\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            return answer["seconds"], np.array(answer["losses"])

        peers["TransformerLens"] = other
    seconds, wanted, apart = {name: [] for name in peers}, a_forward_a_head(), {}
    for turn in range(ROUNDS + 1):  # the first warms up
        for name, peer in peers.items():
            taken, losses = peer()
            apart[name] = float(np.max(np.abs(losses - wanted) / wanted))
            seconds[name] += [taken] if turn else []
    if process:
        process.stdin.close()
        process.wait()
    return {name: {"seconds": float(np.median(each)), "apart": apart[name]} for name, each in seconds.items()}


def timed(function):
    def run():
        began = time.perf_counter()
        found = function()
        return time.perf_counter() - began, found

    return run


def made(layers: int, heads: int):
    """A model of random weights, and windows of random tokens."""
    model = ModelConfig(257, LENGTH, D_MODEL, heads, D_MODEL // heads, (4 * D_MODEL,) * layers)
    path = dispatch.choose("auto", backend=jax.default_backend(), d_k=model.d_k, length=LENGTH, dtype=jnp.float32).path
    params = Transformer(model).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    tokens = np.random.default_rng(0).integers(0, 256, (WINDOWS, LENGTH + 1)).astype(np.uint16)
    length, first = np.full(WINDOWS, LENGTH, np.int32), np.zeros(WINDOWS, np.int32)
    return dataclasses.replace(model, attention=path), params, (tokens, length, first, length)


def for_lens(model: ModelConfig, params: dict, tokens: np.ndarray) -> dict:
    """The weights by TransformerLens's names."""
    shape = (model.num_layers, model.num_heads, model.d_k, model.d_model, model.d_ff[0], LENGTH, model.vocab_size)
    found = {"shape": np.array(shape), "tokens": tokens, "embed.W_E": params["embed"]["embedding"]}
    found |= {"pos_embed.W_pos": params["positions"]["embedding"], "unembed.W_U": params["unembed"]["kernel"]}
    found["ln_final.w"] = params["norm_final"]["scale"]
    for layer in range(model.num_layers):
        own, name = params[f"block_{layer}"], f"blocks.{layer}"
        for letter in "qkv":
            found[f"{name}.attn.W_{letter.upper()}"] = np.moveaxis(own["attention"][f"w_{letter}"], 1, 0)
        found |= {f"{name}.attn.W_O": own["attention"]["w_o"], f"{name}.ln1.w": own["norm_attention"]["scale"]}
        found |= {f"{name}.ln2.w": own["norm_mlp"]["scale"], f"{name}.mlp.W_in": own["mlp_in"]["kernel"]}
        found[f"{name}.mlp.W_out"] = own["mlp_out"]["kernel"]
    return {key: np.asarray(value) for key, value in found.items()}


def page(results: dict) -> str:
    lines = [
        "# Closing every head alone",
        "",
        about.heading(results),
        "",
        f"d_model {D_MODEL}, T = {LENGTH}, {WINDOWS} windows; medians of {ROUNDS} rounds in turn. `apart` is the "
        "largest relative difference of a window's loss from that of a forward pass a head.",
        "",
        "| shape | peer | seconds | times the engine | apart |",
        "|---|---|---|---|---|",
    ]
    for shape, peers in results["shapes"].items():
        for name, found in peers.items():
            ratio = found["seconds"] / peers["engine"]["seconds"]
            lines.append(f"| {shape} | {name} | {found['seconds']:.2f} | {ratio:.2f} | {found['apart']:.0e} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
