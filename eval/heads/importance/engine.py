"""The loss with each head closed alone, exactly and in about half the time of a forward pass a head.

The residual stream that enters each layer, and its heads' outputs, are computed once; a closed head changes what is
behind its layer's attention, so the layers from there on alone are run. Heads with one number in all layers go
together, a few numbers at a time: a layer then is one program whose batch holds the heads closed at or below it.

Dimension key: B window, T position, D d_model, L layer, H head, G head of a group, K head width, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mha import suffix
from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer

# Activations of one group, on a CPU and elsewhere: a CPU is fastest while they stay in its caches.
CPU_BYTES, DEVICE_BYTES = 32 << 20, 2 << 30
MOST_ON_CPU = 4  # heads of a group; more are not faster there


class Windows:
    """A batch of evaluation windows as the model reads them.

    Attributes:
      tokens_BT1, length_B: as of train.data.gold.EvalWindows.
      segments_BT: 1 within the window's tokens, 0 behind them.
      counted_BT: the targets first <= t < last, of which the loss is.
    """

    def __init__(self, tokens_BT1: jax.Array, length_B: jax.Array, first_B: jax.Array, last_B: jax.Array):
        index_1T = jnp.arange(tokens_BT1.shape[1] - 1)[None]
        self.tokens_BT1, self.length_B = tokens_BT1.astype(jnp.int32), length_B
        self.segments_BT = (index_1T < length_B[:, None]).astype(jnp.int32)
        self.counted_BT = (index_1T >= first_B[:, None]) & (index_1T < last_B[:, None])

    @property
    def tokens_BT(self) -> jax.Array:
        return self.tokens_BT1[:, :-1]

    def loss(self, logits_BTV: jax.Array) -> jax.Array:
        """Summed loss (..., B) in nats of the counted targets, from logits (..., B, T, V)."""
        targets_BTV = jax.nn.one_hot(self.tokens_BT1[:, 1:], logits_BTV.shape[-1], dtype=logits_BTV.dtype)
        targets_BTV = jnp.broadcast_to(targets_BTV, logits_BTV.shape)
        losses_BT = optax.softmax_cross_entropy(logits_BTV, targets_BTV)
        return jnp.sum(jnp.where(jnp.broadcast_to(self.counted_BT, losses_BT.shape), losses_BT, 0), axis=-1)


@functools.partial(jax.jit, static_argnames=("model",))
def losses(model: ModelConfig, params: dict, columns: tuple, gates_LH=None, fill_LHK=None) -> jax.Array:
    """Summed loss (B,) in nats of each window, with heads closed where a gate is 0.

    Args:
      columns: arguments of `Windows`.
      gates_LH, fill_LHK: of `mha.edits.Edits`; None: as trained, and zero.
    """
    windows = Windows(*columns)
    edits = None if gates_LH is None else Edits(gates_LH, _layers(model, fill_LHK))
    return windows.loss(Transformer(model).apply({"params": params}, windows.tokens_BT, windows.segments_BT, edits)[0])


@functools.partial(jax.jit, static_argnames=("model", "group"))
def closed_losses(
    model: ModelConfig, params: dict, columns: tuple, fill_LHK=None, gates_LH=None, partner_B=None, group: int = 1
) -> tuple[jax.Array, jax.Array]:
    """The losses of `losses` (B,), and with each head closed too (L, H, B): what it gives there is its fill.

    Args:
      columns: arguments of `Windows`.
      fill_LHK: what a closed head gives; None: zero.
      gates_LH: of heads that are closed already.
      partner_B: in place of a fill: each window's heads give what they give at the same position of this other window,
        or, behind its end, at the position modulo its length.
      group: how many heads of a layer are closed side by side; it divides H.
    """
    windows, layers = Windows(*columns), range(model.num_layers)
    edits = None if gates_LH is None else Edits(gates_LH, _layers(model, fill_LHK))
    apply = {"params": params}
    logits_BTV, seen = Transformer(model).apply(apply, windows.tokens_BT, windows.segments_BT, edits)
    of_layer = [None if edits is None else edits.of_layer(layer) for layer in layers]
    z, x = seen["heads"], seen["residual"]
    gated = [z[layer] if of_layer[layer] is None else of_layer[layer].gated(z[layer]) for layer in layers]
    middle = [suffix.attended(model, params, layer, x[layer], gated[layer]) for layer in layers]
    fills = [0 if fill_LHK is None else fill_LHK[layer].astype(z[layer].dtype)[None, None] for layer in layers]
    if partner_B is not None:
        place_BT = jnp.arange(model.seq_len)[None] % jnp.maximum(windows.length_B[partner_B], 1)[:, None]
        fills = [jnp.take_along_axis(each[partner_B], place_BT[:, :, None, None], axis=1) for each in z]

    def close(heads_G: jax.Array) -> jax.Array:
        """(L, G, B)."""
        x_NBTD = jnp.zeros((0, *x[0].shape), x[0].dtype)
        for layer in layers:
            changed_BTGK = jnp.take(fills[layer] - gated[layer], heads_G, axis=2)
            w_o_GKD = jnp.take(params[f"block_{layer}"]["attention"]["w_o"], heads_G, axis=0).astype(model.dtype)
            change_GBTD = jnp.einsum("BTGK,GKD->GBTD", changed_BTGK, w_o_GKD)
            behind_GBTD = _folded(functools.partial(suffix.feed_forward, model, params, layer))(
                middle[layer][None] + change_GBTD
            )
            if layer:
                segments_NBT = jnp.broadcast_to(windows.segments_BT, x_NBTD.shape[:3])
                through = lambda x_BTD, segments_BT, layer=layer: suffix.block(  # noqa: E731
                    model, params, layer, x_BTD, segments_BT, of_layer[layer]
                )
                x_NBTD = _folded(through)(x_NBTD, segments_NBT)
            x_NBTD = jnp.concatenate([x_NBTD, behind_GBTD])
        logits_NBTV = _folded(functools.partial(suffix.logits, model, params))(x_NBTD)
        return windows.loss(logits_NBTV).reshape(model.num_layers, len(heads_G), -1)

    groups = jnp.arange(model.num_heads).reshape(-1, group)
    closed_LHB = jnp.moveaxis(jax.lax.map(close, groups), 0, 1)
    return windows.loss(logits_BTV), closed_LHB.reshape(model.num_layers, model.num_heads, -1)


def _layers(model: ModelConfig, fill_LHK: jax.Array | None) -> list | None:
    return None if fill_LHK is None else [fill_LHK[layer][None, None] for layer in range(model.num_layers)]


def _folded(function):
    """`function` of arrays whose two leading axes are one."""

    def folded(*arrays):
        leading = arrays[0].shape[:2]
        out = function(*(array.reshape(-1, *array.shape[2:]) for array in arrays))
        return out.reshape(*leading, *out.shape[1:])

    return folded


def group_of(model: ModelConfig, windows: int, budget_bytes: int | None = None) -> int:
    """How many heads of a layer are closed side by side: the largest divisor of H whose activations fit the budget,
    on a CPU MOST_ON_CPU at most."""
    on_cpu = jax.default_backend() == "cpu"
    budget_bytes = budget_bytes or (CPU_BYTES if on_cpu else DEVICE_BYTES)
    width = 6 * model.d_model + 2 * max(model.d_ff) + 3 * model.vocab_size
    size = model.num_layers * windows * model.seq_len * width * max(4, jnp.dtype(model.dtype).itemsize)
    most = max(1, min(budget_bytes // size, MOST_ON_CPU if on_cpu else model.num_heads))
    return max(group for group in range(1, most + 1) if model.num_heads % group == 0)


def windows_of(model: ModelConfig) -> int:
    """Windows of a batch: few on a CPU, whose caches then hold what a group of heads computes."""
    return max(1, (512 if jax.default_backend() == "cpu" else 32_768) // model.seq_len)


def batches(windows, size: int, order: np.ndarray | None = None) -> list[tuple]:
    """The columns of `Windows`, `size` windows at a time, with the numbers of the windows in front; the last batch is
    filled up with windows that count nothing, numbered -1.

    Args:
      windows: train.data.gold.EvalWindows.
      order: which windows, in this order; None: all in their own.
    """
    order = np.arange(len(windows.document)) if order is None else order
    found = []
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        spare = (0, size - len(chosen))
        columns = (windows.tokens, windows.length, windows.first, windows.last)
        rows = [np.pad(each[chosen], [spare] + [(0, 0)] * (each.ndim - 1)) for each in columns]
        found.append((np.pad(chosen, spare, constant_values=-1), tuple(rows)))
    return found
