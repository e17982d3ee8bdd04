"""Loss as heads are removed, in several orders, without training after it."""

import math

import pandas as pd

from eval.heads.importance import ablation, curves, engine, orders, runs
from eval.restore import Restored
from mha.transformer import ModelConfig
from train import grid
from train.config import StudyConfig

IN_STUDY = True
LAYER = "layer"  # followed by its number: all heads of that layer, and of no other
COLUMNS = ["replica", "order", "strength", "removed", "heads", "loss", "rise", "closed"]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.dose.relations:
        return "heads are removed on the documents of a corpus, and here every seed speaks a language of its own."
    if not (config.pruning.orders or config.pruning.tuning_orders):
        return "config.pruning.orders is empty; name some of " + ", ".join(orders.KNOWN) + "."
    return "" if model.causal else "heads are removed for the next token's loss, and this model is masked."


def settings(config: StudyConfig) -> dict:
    chosen = config.pruning
    several = orders.L0 in (*chosen.orders, *chosen.tuning_orders)
    names = ("orders", "tuning_orders", "rounds", "windows", "per_document", "draws")
    return {
        **{name: getattr(chosen, name) for name in names},
        "strengths": chosen.strengths if several else (),
        "stride": config.eval.stride,
    }


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """A row a replica, order and point: how many of `heads` are `removed`, `loss` (nats/token) and its `rise` above
    that of the whole model, and which are `closed`, as layer.head in the order of their removal.

    Orders are found on windows of tune, and followed on `split`. Beside the orders each layer's heads go together
    (`layer 0` and so on). `strength` is of L0 gates; `random 1` is another draw of `random`.
    """
    corpus, model, rows = restored.corpus, restored.pack.model, []
    key = {"checkpoint": (restored.trained or {}).get("checkpoint"), "step": restored.step, "settings": chosen}
    points = curves.Points(restored.folder and restored.folder / f"pruning_{restored.pack.index}.jsonl", key)
    windows = ablation.of_split(corpus, split, model.seq_len, chosen["stride"], chosen["per_document"])
    batches = engine.batches(windows, 4 * engine.windows_of(model))
    tokens, heads = int((windows.last - windows.first).sum()), model.num_layers * model.num_heads
    ordered_on = ablation.sample(corpus, "tune", model.seq_len, chosen["windows"])
    for replica, params in runs.finished(restored):
        own = {"replica": replica.name}
        whole = curves.loss_without(points, {**own, "split": split}, model, params, batches, [])
        seed, asked = replica.init_seed, _asked(restored, replica, chosen)
        for about, steps in _orders(points, own, model, params, ordered_on, chosen, asked, seed):
            removed = []
            for some in [[], *steps]:
                removed = [*removed, *some]
                where = {**about, "split": split} if removed else {**own, "split": split}
                loss = curves.loss_without(points, where, model, params, batches, removed)
                point = {"strength": math.nan, **about, "removed": len(removed), "heads": heads}
                point |= {"loss": loss / tokens, "rise": (loss - whole) / tokens}
                rows.append({**point, "closed": " ".join(f"{layer}.{head}" for layer, head in removed)})
    return pd.DataFrame(rows, columns=COLUMNS)


def _asked(restored: Restored, replica: grid.Replica, chosen: dict) -> tuple[str, ...]:
    tunes = grid.chooses(replica, restored.study)
    return chosen["tuning_orders" if tunes else "orders"]


def _orders(points, own: dict, model: ModelConfig, params: dict, windows, chosen: dict, asked, seed: int):
    """(what tells its points from others, the heads of each round) of each order that is asked for."""
    if asked:
        for layer in range(model.num_layers):
            yield {**own, "order": f"{LAYER} {layer}"}, [[(layer, head) for head in range(model.num_heads)]]
    for order in asked:
        if order == orders.L0:
            for strength in chosen["strengths"]:
                about = {**own, "order": order, "strength": strength}
                yield about, curves.removed_by(points, about, model, params, windows, 1, seed)
        draws = chosen["draws"] if order in (orders.RANDOM, orders.WITHIN_LAYERS) else 1
        for draw in range(draws) if order != orders.L0 else ():
            about = {**own, "order": order if draw == 0 else f"{order} {draw}"}
            args = (model, params, windows, chosen["rounds"], [seed, draw])
            yield about, curves.removed_by(points, about, *args)


def closed_heads(closed: str) -> list[orders.Head]:
    """The heads that a row's `closed` names."""
    return [tuple(int(number) for number in head.split(".")) for head in closed.split()]
