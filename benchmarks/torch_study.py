"""PyTorch's side of benchmarks/study.py: a careful loop over the replicas of a task, in a process of its own.

Run by the benchmark: torch_study.py eager|compile FOLDER [CORE INDEX COUNT]; with the last three it keeps to one core
and trains every COUNT-th replica. The last line that it prints is JSON.
"""

import json
import math
import os
import pathlib
import sys
import time

if len(sys.argv) > 3:  # before PyTorch starts its threads
    os.sched_setaffinity(0, {int(sys.argv[3])})

import numpy as np
import torch
import torch.nn.functional as F
from torch_peer import Block, Model


def load(folder: pathlib.Path, name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(folder / f"{name}.npy").astype(np.int64))


def model_of(task: dict, run: dict) -> Model:
    model = Model(task["vocab"], task["length"], run["d_model"], run["heads"], 1, 0)
    model.blocks = torch.nn.ModuleList(Block(run["d_model"], run["heads"], width) for width in run["d_ff"])
    return model


def multiple(task: dict, step: int) -> float:
    """Of the peak rate: linear warm-up, then cosine to 0."""
    warmup, steps = task["warmup"], task["steps"]
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def loss_of(model, windows: torch.Tensor, bos: int) -> torch.Tensor:
    """Mean loss of every target but BOS, which begins another document."""
    targets = windows[:, 1:].reshape(-1)
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.reshape(targets.numel(), -1), targets.masked_fill(targets == bos, -100))


def train(task: dict, run: dict, folder: pathlib.Path, tokens: torch.Tensor, compiled: bool):
    """A trained model, and the seconds that its first step took longer than its second."""
    torch.manual_seed(run["seed"])
    model = model_of(task, run)
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": task["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=run["rate"], betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: multiple(task, step))
    forward = torch.compile(model) if compiled else model
    starts, offsets = load(folder, f"starts_{run['seed']}"), torch.arange(task["length"] + 1)
    taken, logged = [], []
    for step in range(task["steps"]):
        began = time.perf_counter()
        loss = loss_of(forward, tokens[starts[step][:, None] + offsets], task["bos"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), task["clip"])
        optimizer.step()
        schedule.step()
        if step % task["log_every"] == 0:
            logged.append(loss.item())
        taken.append(time.perf_counter() - began)
    return forward, max(0.0, taken[0] - taken[1])


@torch.no_grad()
def test_loss(task: dict, model, tokens: torch.Tensor) -> float:
    starts = torch.arange(0, len(tokens) - task["length"] - 1, task["length"])
    whole = len(starts) // task["eval_batch"] * task["eval_batch"]
    offsets = torch.arange(task["length"] + 1)
    batches = starts[:whole].reshape(-1, task["eval_batch"])
    losses = [loss_of(model, tokens[batch[:, None] + offsets], task["bos"]).item() for batch in batches]
    return sum(losses) / len(losses)


def main():
    compiled, folder = sys.argv[1] == "compile", pathlib.Path(sys.argv[2])
    index, count = map(int, sys.argv[4:6] or (0, 1))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task = json.loads((folder / "task.json").read_text())
    training, test = load(folder, "train"), load(folder, "test")
    losses, compiling = [], 0.0
    for run in task["runs"][index::count]:
        torch.compiler.reset()
        model, seconds = train(task, run, folder, training, compiled)
        compiling += seconds
        losses.append(test_loss(task, model, test))
    print(json.dumps({"losses": losses, "compile_seconds": compiling}))


if __name__ == "__main__":
    main()
