"""What takes a closed head's place, and the rise in loss: zero, mean, resample and optimal ablation.

Zero asks what the head adds; mean (over the train split, one vector a head) and resample (what the head gives for
another document) ask what it adds that depends on the document; optimal (Li and Janson 2024), the one vector that
lowers the ablated loss the most, leaves out what removal breaks beside the loss of information.

Dimension key: B window, T position, L layer, H head, K head width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eval.heads.importance import engine
from mha.transformer import ModelConfig, Transformer
from train.config import refuse
from train.data.corpora import Corpus, eval_windows
from train.data.gold import EvalWindows

ZERO, MEAN, RESAMPLE, OPTIMAL = "zero", "mean", "resample", "optimal"
KINDS = (ZERO, MEAN, RESAMPLE, OPTIMAL)
OPTIMAL_RATE = 0.05  # of Adam, in units of each head's mean absolute output


def sample(corpus: Corpus, split: str, seq_len: int, count: int) -> EvalWindows:
    """At most `count` windows of a split, evenly spread over its documents."""
    windows = eval_windows(corpus, split, seq_len)
    chosen = np.unique(np.linspace(0, len(windows.document) - 1, count).round().astype(int))
    return EvalWindows(*(getattr(windows, field.name)[chosen] for field in dataclasses.fields(windows)))


def of_split(corpus: Corpus, split: str, seq_len: int, stride: int, most: int) -> EvalWindows:
    """The windows of a split (train.data.corpora.eval_windows), of each document at most `most`, evenly spread; 0: all.

    Args:
      stride: 0 means seq_len.
    """
    windows = eval_windows(corpus, split, seq_len, min(stride or seq_len, seq_len))
    count = np.bincount(windows.document)[windows.document]
    place = np.arange(len(count)) - np.searchsorted(windows.document, windows.document)
    kept = (place + 1) * most // count > place * most // count if most else np.ones(len(count), bool)
    kept |= count <= (most or count)
    return EvalWindows(*(getattr(windows, field.name)[kept] for field in dataclasses.fields(windows)))


@functools.partial(jax.jit, static_argnames="model")
def _summed_outputs(model: ModelConfig, params: dict, columns: tuple):
    """Of the heads' outputs over the tokens of a batch: sums (L, H, K), sums of absolute values, and the tokens."""
    windows = engine.Windows(*columns)
    _, seen = Transformer(model).apply({"params": params}, windows.tokens_BT, windows.segments_BT)
    inside_BT11 = (windows.segments_BT > 0)[:, :, None, None]
    z_LBTHK = jnp.stack([jnp.where(inside_BT11, z_BTHK, 0) for z_BTHK in seen["heads"]])
    return z_LBTHK.sum((1, 2)), jnp.abs(z_LBTHK).sum((1, 2)), windows.segments_BT.sum()


def means(model: ModelConfig, params: dict, windows: EvalWindows) -> tuple[jax.Array, jax.Array]:
    """Mean output (L, H, K) of each head over the tokens of `windows`, and the mean of its absolute value."""
    batches = engine.batches(windows, engine.windows_of(model))
    sums = [_summed_outputs(model, params, columns) for _, columns in batches]
    whole, absolute, tokens = (sum(part) for part in zip(*sums, strict=True))
    return whole / tokens, absolute / tokens


def optimal(model: ModelConfig, params: dict, windows: EvalWindows, start_LHK, scale_LHK, steps: int) -> jax.Array:
    """The constant output (L, H, K) of each head, alone in its place, that minimises the loss of `windows` (Li and
    Janson 2024, definition 2.3), by `steps` steps of Adam over batches of them with a decaying rate.

    The heads' losses are summed; since each depends on its own vector alone, that minimises all at once.

    Args:
      start_LHK, scale_LHK: as `means` gives.
    """
    batches = engine.batches(windows, engine.windows_of(model))
    group = engine.group_of(model, engine.windows_of(model))
    scale_LHK = jnp.maximum(scale_LHK, 1e-6)
    adam = optax.adam(optax.cosine_decay_schedule(OPTIMAL_RATE, steps))

    @jax.jit
    def step(params, columns, shift_LHK, state):
        def ablated(shift_LHK):
            fill_LHK = start_LHK + scale_LHK * shift_LHK
            _, closed_LHB = engine.closed_losses(model, params, columns, fill_LHK, group=group)
            return jnp.sum(closed_LHB) / jnp.maximum(jnp.sum(engine.Windows(*columns).counted_BT), 1)

        updates, state = adam.update(jax.grad(ablated)(shift_LHK), state)
        return optax.apply_updates(shift_LHK, updates), state

    shift_LHK = jnp.zeros_like(start_LHK)
    state = adam.init(shift_LHK)
    for number in range(steps):
        shift_LHK, state = step(params, batches[number % len(batches)][1], shift_LHK, state)
    return start_LHK + scale_LHK * shift_LHK


def mixed_order(windows: EvalWindows, size: int) -> np.ndarray:
    """The windows in an order in which those of one batch of `size` are of many documents."""
    count = len(windows.document)
    return np.argsort(np.arange(count) % -(-count // size), kind="stable")


def partners(document_B: np.ndarray) -> np.ndarray:
    """For each window of a batch the number of another, of another document: the next but as few as it takes.

    Raises:
      InputError: all windows are of one document.
    """
    count = len(document_B)
    shifts = [shift for shift in range(1, count) if (np.roll(document_B, -shift) != document_B).all()]
    if shifts:
        return (np.arange(count) + shifts[0]) % count
    chosen = []
    for row in range(count):
        others = [(row + shift) % count for shift in range(1, count)]
        chosen.append(next((other for other in others if document_B[other] != document_B[row]), None))
    refuse(
        None in chosen
        and f"resample ablation takes another document's outputs, and a batch of {count} windows is all of one "
        f"document; drop resample from ablation.kinds, or give the split more documents."
    )
    return np.array(chosen)


def rises(
    model: ModelConfig, params: dict, windows: EvalWindows, fill_LHK=None, gates_LH=None, resample: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss in nats of each window, float64 (windows,), and how much it rises with each head closed alone
    (L, H, windows), in nats.

    Args:
      fill_LHK: what a closed head gives; None: zero.
      gates_LH: of heads that are closed already.
      resample: in place of a fill, a closed head gives what it gives for another document of its batch.
    """
    size = engine.windows_of(model) if not resample else max(8, engine.windows_of(model))
    group, count = engine.group_of(model, size), len(windows.document)
    whole = np.zeros(count)
    rise = np.zeros((model.num_layers, model.num_heads, count))
    order = mixed_order(windows, size) if resample else None
    for numbers, columns in engine.batches(windows, size, order):
        partner = None
        if resample:
            here = numbers >= 0
            partner = np.arange(size)
            partner[here] = partners(windows.document[numbers[here]])
        losses_B, closed_LHB = engine.closed_losses(
            model, params, columns, fill_LHK, gates_LH, None if partner is None else jnp.asarray(partner), group
        )
        here = numbers >= 0
        losses_B, closed_LHB = np.asarray(losses_B, np.float64), np.asarray(closed_LHB, np.float64)
        whole[numbers[here]] = losses_B[here]
        rise[:, :, numbers[here]] = (closed_LHB - losses_B)[:, :, here]
    return whole, rise


def summed_by(groups: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of `values` (..., windows) over the windows of each of `count` groups: (..., count)."""
    flat = values.reshape(-1, values.shape[-1])
    return np.stack([np.bincount(groups, row, count) for row in flat]).reshape(*values.shape[:-1], count)
