"""How far the heads of runs agree that share the init, the data, both or neither, by index and matched."""

import functools
import hashlib
import itertools

import jax
import numpy as np
import pandas as pd

from eval.heads.composition.matching import Correlations, agreement
from eval.restore import Restored
from mha.attention import logit_factor
from mha.kernels import reference
from mha.transformer import ModelConfig, Transformer
from train import grid
from train.config import InputError, StudyConfig
from train.data.corpora import eval_windows
from train.replica_axis import over_replicas

IN_STUDY = True
PROMPTS = 32  # windows of the split, evenly spread over it, every other one in the other half
BUDGET_BYTES = 128 << 20  # that the patterns of some prompts may take
COLUMNS = ["replica", "start", "other", "other_init", "other_data", "other_start", "step", "layer", "by_index"]
COLUMNS += ["matched", "left_out"]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.dose.relations:
        return "heads are compared on the prompts of one corpus, and here every seed speaks a language of its own."
    return "" if config.grid.seeds == "crossed" else "who decides takes init and data apart, grid.seeds=crossed."


def settings(config: StudyConfig) -> dict:
    return {}


def measure_cell(packs: list[Restored], split: str, chosen: dict, needed: dict) -> pd.DataFrame:
    """On `test` alone, a row a step (the last, and those of train.keep_checkpoints), layer and two runs of one learning
    rate that did not diverge, runs from drawn weights first: mean correlation of their heads' attention on the same
    prompts, `by_index` and `matched` on half of the prompts and scored on the other, and how many heads of the two are
    `left_out`, since they write nothing. `start` says which weights a run began with.

    Raises:
      InputError: two runs have equal weights, or the split is a single window.
    """
    runs = [
        (replica, pack, row)
        for pack in packs
        for row, (replica, lost) in enumerate(zip(pack.pack.replicas, np.asarray(pack.diverged_at), strict=True))
        if lost < 0 and not grid.chooses(replica, pack.study)
    ]
    runs.sort(key=lambda run: run[0].start != grid.DRAWN)
    if split != "test" or len(runs) < 2:
        return pd.DataFrame(columns=COLUMNS)
    _check_apart(runs)
    rows = []
    for step in sorted({*packs[0].study.train.keep_checkpoints, packs[0].step}):
        at_step = [pack if step == pack.step else pack.at(step) for pack in packs]
        places = {replica.name: (at_step[packs.index(pack)], row) for replica, pack, row in runs}
        rows += _of_step(at_step, [replica for replica, *_ in runs], places, split)
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_step(packs: list[Restored], runs: list[grid.Replica], places: dict, split: str) -> list[tuple]:
    """The rows of one step.

    Args:
      places: by name the pack and row of each run.
    """
    order, by_layer = _correlations(packs, split)
    rows, heads = [], packs[0].pack.model.num_heads
    alive = {name: _alive(*place) for name, place in places.items()}
    for one, other in itertools.combinations(runs, 2):
        if one.learning_rate != other.learning_rate:
            continue
        first, second = (slice(order[each.name] * heads, (order[each.name] + 1) * heads) for each in (one, other))
        about = (one.name, one.start, other.name, other.init_seed, other.data_seed, other.start, packs[0].step)
        for layer, r in enumerate(by_layer):
            found = agreement(r[:, first, second], (alive[one.name][layer], alive[other.name][layer]))
            rows.append((*about, layer, *found))
    return rows


def _check_apart(runs: list[tuple]) -> None:
    """Raises InputError where two runs have the same weights, as seeds of public checkpoints were found to have."""
    seen = {}
    for replica, pack, row in runs:
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(pack.params):
            digest.update(np.ascontiguousarray(leaf[row]).tobytes())
        other = seen.setdefault(digest.digest(), replica.name)
        if other != replica.name:
            raise InputError(
                f"{other} and {replica.name} have equal weights, so they are one run and not two; train them again in "
                f"another --workdir."
            )


def _alive(pack: Restored, row: int) -> np.ndarray:
    """Which heads write anything: bool (L, H)."""
    found = []
    for layer in range(pack.pack.model.num_layers):
        attention = pack.params[f"block_{layer}"]["attention"]
        w_v_DHK, w_o_HKD = (np.asarray(attention[name][row]) for name in ("w_v", "w_o"))
        found.append(w_v_DHK.any(axis=(0, 2)) & w_o_HKD.any(axis=(1, 2)))
    return np.array(found)


def _correlations(packs: list[Restored], split: str) -> tuple[dict[str, int], list[np.ndarray]]:
    """The place of each replica's heads, in units of H, and of each layer the correlations (2, N, N)."""
    model, corpus = packs[0].pack.model, packs[0].corpus
    seen = eval_windows(corpus, split, model.seq_len)
    count = len(seen.length)
    if count < 2:
        raise InputError(f"the {split} split is {count} window, and heads are matched on one half of them and scored "
                         f"on the other; raise data.{split}_fraction.")  # fmt: skip
    prompts = np.unique(np.linspace(0, count - 1, min(count, PROMPTS)).round().astype(int))
    tokens, length = np.asarray(seen.tokens)[prompts, :-1].astype(np.int32), np.asarray(seen.length)[prompts]
    names = [replica.name for pack in packs for replica in pack.pack.replicas]
    sums = [Correlations(len(names) * model.num_heads) for _ in range(model.num_layers)]
    query, key = np.indices((model.seq_len, model.seq_len))
    entries = (query > 0) & (key <= query) if model.causal else np.ones_like(query, bool)  # query 0 has one key
    of_prompt = 4 * len(names) * model.num_layers * model.num_heads * model.seq_len**2
    step = max(1, BUDGET_BYTES // of_prompt)
    for half in (0, 1):
        mine = np.arange(half, len(prompts), 2)
        for some in np.split(mine, range(step, len(mine), step)):
            segments = (np.arange(model.seq_len) < length[some, None]).astype(np.int32)
            parts = [
                np.asarray(_patterns(pack.pack.model, pack.pack.replica_map, pack.params, tokens[some], segments))
                for pack in packs
            ]
            for layer, total in enumerate(sums):
                chosen = np.concatenate([part[:, layer] for part in parts])[..., entries]  # (M, B, H, E)
                total.add(half, chosen.swapaxes(1, 2).reshape(len(names) * model.num_heads, -1))
    return {name: place for place, name in enumerate(names)}, [total.correlations() for total in sums]


@functools.partial(jax.jit, static_argnames=("model", "replica_map"))
def _patterns(model: ModelConfig, replica_map: str, params, tokens_BT, segments_BT):
    """Attention weights (R, L, B, H, T, S)."""
    mask = dict(scale=logit_factor(model.logit_scale, model.d_k), causal=model.causal, segments_BT=segments_BT)

    def one_replica(params):
        _, seen = Transformer(model).apply({"params": params}, tokens_BT, segments_BT, None, True)
        pairs = zip(seen["query"], seen["key"], strict=True)
        return jax.numpy.stack([reference.weights(query, key, **mask) for query, key in pairs])

    return over_replicas(one_replica, replica_map)(params)
