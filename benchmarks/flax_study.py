"""Flax's side of benchmarks/study.py: a plain loop over the replicas of a task, in a process of its own.

Run by the benchmark: python -m benchmarks.flax_study FOLDER. The last line that it prints is JSON.
"""

import functools
import json
import pathlib
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state


class PlainModel(nn.Module):
    """The same pre-norm Transformer of Flax's own layers."""

    vocab: int
    length: int
    d_model: int
    heads: int
    d_ff: tuple[int, ...]

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(self.vocab, self.d_model)(tokens)
        x = x + nn.Embed(self.length, self.d_model)(jnp.arange(tokens.shape[1]))[None]
        mask = nn.make_causal_mask(tokens)
        for width in self.d_ff:
            y = nn.RMSNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, use_bias=False)(y, y, mask=mask)
            y = nn.gelu(nn.Dense(width, use_bias=False)(nn.RMSNorm()(x)))
            x = x + nn.Dense(self.d_model, use_bias=False)(y)
        return nn.Dense(self.vocab, use_bias=False)(nn.RMSNorm()(x))


def mean_loss(model: nn.Module, bos: int, params, windows):
    """Mean loss of every target but BOS, which begins another document."""
    logits, targets = model.apply({"params": params}, windows[:, :-1]), windows[:, 1:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(losses * (targets != bos)) / jnp.sum(targets != bos)


def train(task: dict, folder: pathlib.Path) -> dict:
    """A jitted step a replica, a batch from the host a step, metrics read every log_every steps."""
    training, test = (np.load(folder / f"{split}.npy").astype(np.int32) for split in ("train", "test"))
    offsets, losses, compiling = np.arange(task["length"] + 1), [], 0.0
    for run in task["runs"]:
        model = PlainModel(task["vocab"], task["length"], run["d_model"], run["heads"], tuple(run["d_ff"]))
        schedule = optax.warmup_cosine_decay_schedule(0.0, run["rate"], task["warmup"], task["steps"])
        decays = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)  # noqa: E731
        adamw = optax.adamw(schedule, b2=0.98, weight_decay=task["weight_decay"], mask=decays)
        example = jnp.zeros((1, task["length"]), jnp.int32)
        params = jax.jit(model.init)(jax.random.key(run["seed"]), example)["params"]
        optimizer = optax.chain(optax.clip_by_global_norm(task["clip"]), adamw)
        state = train_state.TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)

        def step(state, windows, model=model):
            loss_of = functools.partial(mean_loss, model, task["bos"])
            loss, grads = jax.value_and_grad(loss_of)(state.params, windows)
            return state.apply_gradients(grads=grads), loss

        step, taken, logged = jax.jit(step, donate_argnums=0), [], []
        starts = np.load(folder / f"starts_{run['seed']}.npy")
        for number in range(task["steps"]):
            began = time.perf_counter()
            state, loss = step(state, training[starts[number][:, None] + offsets])
            if number % task["log_every"] == 0:
                logged.append(float(loss))
            taken.append(time.perf_counter() - began)
        compiling += taken[0] - taken[1]
        losses.append(test_loss(task, model, state.params, test))
    return {"losses": losses, "compile_seconds": compiling}


def test_loss(task: dict, model: nn.Module, params, tokens: np.ndarray) -> float:
    starts = np.arange(0, len(tokens) - task["length"] - 1, task["length"])
    whole = len(starts) // task["eval_batch"] * task["eval_batch"]
    offsets = np.arange(task["length"] + 1)
    evaluate = jax.jit(lambda params, windows: mean_loss(model, task["bos"], params, windows))
    batches = starts[:whole].reshape(-1, task["eval_batch"])
    return float(np.mean([evaluate(params, tokens[batch[:, None] + offsets]) for batch in batches]))


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    print(json.dumps(train(json.loads((place / "task.json").read_text()), place)))
