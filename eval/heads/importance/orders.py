"""In which order heads are removed, a round at a time, each round by what is left.

A removed head's output is zero. Heads are (layer, head).

Dimension key: L layer, H head.
"""

from collections.abc import Iterator

import numpy as np

from eval.heads.importance import ablation, hard_concrete, scores
from mha.transformer import ModelConfig
from train.config import refuse
from train.data.gold import EvalWindows

RANDOM, WITHIN_LAYERS, MAGNITUDE = "random", "random_within_layers", "magnitude"
GRADIENT, NORMALISED, ONE_SHOT, GREEDY, L0 = "gradient", "gradient_normalised", "one_shot", "greedy", "l0"
ORDERS = (RANDOM, WITHIN_LAYERS, MAGNITUDE, GRADIENT, NORMALISED, ONE_SHOT, GREEDY)  # one round goes on from another
KNOWN = (*ORDERS, L0)
L0_STEPS = 200  # of training the gates

Head = tuple[int, int]


def counts(heads: int, rounds: int) -> list[int]:
    """How many heads are removed after each of at most `rounds` rounds: parts as equal as can be, the last all."""
    return sorted({round(heads * (part + 1) / min(rounds, heads)) for part in range(min(rounds, heads))})


def gates(model: ModelConfig, removed: list[Head]) -> np.ndarray:
    """Gates (L, H), 0 of the heads that are removed.

    Raises:
      InputError: the model has no such head.
    """
    shape = model.num_layers, model.num_heads
    strange = [head for head in removed if not (0 <= head[0] < shape[0] and 0 <= head[1] < shape[1])]
    refuse(strange and f"the heads {strange} are not among {shape[0]} layers of {shape[1]} heads.")
    open_LH = np.ones(shape, np.float32)
    for head in removed:
        open_LH[head] = 0
    return open_LH


def at_share(heads: int, share: float) -> int:
    """How many of `heads` a share is.

    Raises:
      InputError: it is not within [0, 1].
    """
    refuse(not 0 <= share <= 1 and f"a share of heads is from 0 to 1, and {share:g} is not.")
    return round(heads * share)


def rounds(
    order: str, model: ModelConfig, params: dict, windows: EvalWindows, number: int, seed, removed: list[Head] = ()
) -> Iterator[list[Head]]:
    """Of each round the heads that it removes, the one that matters least first.

    Args:
      order: one of ORDERS.
      windows: what importance is measured on.
      number: of rounds, over all heads.
      seed: of a random order, a number or several.
      removed: by earlier rounds, to go on from.
    """
    removed, every = list(removed), [*np.ndindex(model.num_layers, model.num_heads)]
    static = _static(order, model, params, windows, seed)
    for count in [count for count in counts(len(every), number) if count > len(removed)]:
        open_LH = gates(model, removed)
        score_LH = static if static is not None else _of_what_is_left(order, model, params, windows, open_LH)
        left = sorted((head for head in every if open_LH[head]), key=lambda head: (score_LH[head], head))
        chosen = left[: count - len(removed)]
        removed += chosen
        yield chosen


def _static(order: str, model: ModelConfig, params: dict, windows: EvalWindows, seed) -> np.ndarray | None:
    """Scores (L, H) that no removal changes, lowest first to go; None where it does."""
    draw, shape = np.random.default_rng(seed), (model.num_layers, model.num_heads)
    if order == RANDOM:
        return draw.permutation(shape[0] * shape[1]).reshape(shape)
    if order == WITHIN_LAYERS:  # one of each layer, then another of each layer, and so on
        heads, score_LH = [draw.permutation(shape[1]) for _ in range(shape[0])], np.empty(shape)
        for rank in range(shape[1]):
            for place, layer in enumerate(draw.permutation(shape[0])):
                score_LH[layer, heads[layer][rank]] = rank * shape[0] + place
        return score_LH
    if order == MAGNITUDE:
        return scores.magnitude(model, params)
    return _exact(model, params, windows, None) if order == ONE_SHOT else None


def _of_what_is_left(order: str, model: ModelConfig, params: dict, windows: EvalWindows, open_LH) -> np.ndarray:
    if order == GREEDY:
        return _exact(model, params, windows, open_LH)
    raw_LH = scores.gradient(model, params, windows, open_LH)
    return raw_LH if order == GRADIENT else scores.normalised(raw_LH * open_LH)


def _exact(model: ModelConfig, params: dict, windows: EvalWindows, open_LH) -> np.ndarray:
    return ablation.rises(model, params, windows, gates_LH=open_LH)[1].sum(axis=-1)


def by_gates(model: ModelConfig, params: dict, windows: EvalWindows, strength: float, seed: int) -> list[Head]:
    """The heads that L0 gates of this strength close, by the larger probability, the surest first."""
    log_a = hard_concrete.learned(model, params, windows, strength, L0_STEPS, seed)
    closed = np.asarray(hard_concrete.settled(log_a)) < 0.5
    ranked = sorted((float(log_a[head]), head) for head in zip(*np.nonzero(closed), strict=True))
    return [(int(layer), int(head)) for _, (layer, head) in ranked]
