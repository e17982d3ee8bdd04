"""What runs start from: weights as drawn, drawn and moved a little, by hand, or drawn with attention that stays off."""

import jax
import numpy as np

from mha.transformer import ModelConfig
from train.config import refuse
from train.data.relations import by_hand
from train.data.relations.language import Language
from train.grid import PERTURBED

KNOWN = HAND_BUILT, NO_ATTENTION, MLP_FIRST = "hand_built", "no_attention", "mlp_first"
MOVED = 1e-6  # of each weight, the standard deviation that a perturbed one is moved by
TO_THE_CAP = (HAND_BUILT, NO_ATTENTION)  # asks what a run keeps, or never learns, and not when it gets there


def check(start: str, model: ModelConfig, spoken: Language) -> None:
    """Raises InputError where a model cannot start so."""
    why = by_hand.refusal(model, spoken) if start == HAND_BUILT else ""
    if start == MLP_FIRST and model.num_layers < 2:
        why = (
            f"It turns the first layer's attention off, and this model has {model.num_layers} layer; set "
            f"--config.model.num_layers=2."
        )
    refuse(why and f"dose.starts={start} cannot be: {why[0].lower()}{why[1:]}")


def learning_rate(start: str, chosen: float, tried: tuple[float, ...]) -> float:
    """`chosen`, the rate that suits drawn weights; for weights by hand a tenth of the smallest `tried`, since whether
    they are kept is asked, and not how fast others are found."""
    return min(tried) / 10 if start == HAND_BUILT else chosen


def params(start: str, model: ModelConfig, spoken: Language | None, drawn: dict) -> dict:
    """The parameters of one replica before step 0, from those `drawn` for it.

    Attention is off where w_v and w_o are both 0: what a head adds is then 0, and so is the gradient in either, so
    training leaves it off for good, as gates of 0 would.

    Args:
      spoken: the language that it reads, which weights by hand are made for.
    """
    if start == PERTURBED:
        random = np.random.default_rng(0)
        return jax.tree.map(
            lambda leaf: (leaf * (1 + MOVED * random.normal(size=leaf.shape))).astype(leaf.dtype), drawn
        )
    if start == HAND_BUILT:
        return by_hand.weights(model, spoken, drawn)
    off, silent = {NO_ATTENTION: range(model.num_layers), MLP_FIRST: range(1)}.get(start, ()), {}
    for name in (f"block_{layer}" for layer in off):
        attention = drawn[name]["attention"]
        zeros = {weight: np.zeros_like(attention[weight]) for weight in ("w_v", "w_o")}
        silent[name] = drawn[name] | {"attention": attention | zeros}
    return jax.tree.map(np.asarray, drawn | silent)
