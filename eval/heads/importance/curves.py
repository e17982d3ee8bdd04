"""Loss as heads go, a point a round, each point written down as soon as it is there.

A file of points begins with the key of what it was measured with; with another key it begins anew.
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np

from eval.heads.importance import engine, orders
from eval.heads.importance.orders import Head
from mha.transformer import ModelConfig
from train.data.gold import EvalWindows


class Points:
    """Lines of JSON, of which those that are whole are kept when it is opened again.

    Args:
      path: None: they are kept in memory alone.
    """

    def __init__(self, path: pathlib.Path | None, key: dict):
        self._path, self.lines = path, []
        key = json.loads(json.dumps(key))
        stored = path.read_text().splitlines() if path and path.exists() else []
        for number, line in enumerate(stored):
            try:
                value = json.loads(line)
            except ValueError:  # cut short while it was written
                break
            if number == 0 and value != key:
                break
            self.lines.append(value)
        self.lines = self.lines[1:]
        if path:
            path.write_text("".join(json.dumps(line) + "\n" for line in [key, *self.lines]))

    def add(self, line: dict) -> dict:
        self.lines.append(line)
        if self._path:
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")
        return line

    def find(self, **fields) -> list[dict]:
        """The lines that have these fields."""
        return [line for line in self.lines if fields.items() <= line.items()]


def removed_by(
    points: Points, about: dict, model: ModelConfig, params: dict, windows: EvalWindows, number: int, seed
) -> list[list[Head]]:
    """The heads that each round removes, of what `about`'s order; rounds that are written down are not done again.

    Args:
      about: `replica` and `order`, and of L0 `strength`, whose one round it is.
      number: of rounds.
    """
    known = [[tuple(head) for head in line["heads"]] for line in points.find(kind="round", **about)]
    if about["order"] == orders.L0:
        return known or [_noted(points, about, orders.by_gates(model, params, windows, about["strength"], seed))]
    if sum(map(len, known)) == model.num_layers * model.num_heads:
        return known
    done = [head for heads in known for head in heads]
    coming = orders.rounds(about["order"].partition(" ")[0], model, params, windows, number, seed, done)
    return known + [_noted(points, about, heads) for heads in coming]


def _noted(points: Points, about: dict, heads: list[Head]) -> list[Head]:
    heads = [(int(layer), int(head)) for layer, head in heads]
    points.add({"kind": "round", **about, "heads": heads})
    return heads


def loss_without(
    points: Points, about: dict, model: ModelConfig, params: dict, batches: list[tuple], removed: list[Head]
) -> float:
    """Summed loss in nats with the heads `removed`, over the windows of `batches`.

    Args:
      about: with `split`, and what else tells this point from others.
    """
    known = points.find(kind="loss", **about, removed=len(removed))
    if not known:
        gates_LH, total = jnp.asarray(orders.gates(model, removed)), 0.0
        for _, columns in batches:
            total += float(np.asarray(engine.losses(model, params, columns, gates_LH), np.float64).sum())
        known = [points.add({"kind": "loss", **about, "removed": len(removed), "loss": total})]
    return known[0]["loss"]
