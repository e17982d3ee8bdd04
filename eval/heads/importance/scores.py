"""How much each head matters, by measures that are cheaper than closing it.

Dimension key: B window, T position, S key position, D d_model, L layer, H head, K head width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eval.heads.importance import engine
from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer, weights_in_blocks
from train.data.gold import EvalWindows


@functools.partial(jax.jit, static_argnames="model")
def gate_gradients(model: ModelConfig, params: dict, columns: tuple, gates_LH: jax.Array) -> jax.Array:
    """dL(x)/dxi (L, B, H) in nats: of each window's summed loss L(x) in the gate xi of each head, by one backward pass.

    Args:
      columns: arguments of `engine.Windows`.
    """
    windows = engine.Windows(*columns)

    def summed(gates_LBH):
        edits = Edits(gates_LBH)
        out_BTV, _ = Transformer(model).apply({"params": params}, windows.tokens_BT, windows.segments_BT, edits)
        return jnp.sum(windows.loss(out_BTV))

    shape = (model.num_layers, len(windows.length_B), model.num_heads)
    return jax.grad(summed)(jnp.broadcast_to(gates_LH[:, None], shape))


def gradient(model: ModelConfig, params: dict, windows: EvalWindows, gates_LH: np.ndarray | None = None) -> np.ndarray:
    """I_h = E_x |dL(x)/dxi_h| (Michel et al. 2019, equation 2) (L, H), nats a token: the absolute value of each window
    before the mean. It equals E_x |Att_h(x)^T dL(x)/dAtt_h(x)|.

    Args:
      gates_LH: where the gradient is taken; None: all open.
    """
    gates_LH = jnp.ones((model.num_layers, model.num_heads)) if gates_LH is None else jnp.asarray(gates_LH, float)
    total, tokens = np.zeros(gates_LH.shape), (windows.last - windows.first).sum()
    for _, columns in engine.batches(windows, 4 * engine.windows_of(model)):
        total += np.abs(np.asarray(gate_gradients(model, params, columns, gates_LH), np.float64)).sum(axis=1)
    return total / tokens


def normalised(scores_LH: np.ndarray) -> np.ndarray:
    """Scores divided by the Euclidean norm of their layer's (Michel et al. 2019, section 2.3)."""
    norms = np.sqrt(np.sum(scores_LH**2, axis=1, keepdims=True))
    return scores_LH / np.where(norms > 0, norms, 1)


def magnitude(model: ModelConfig, params: dict) -> np.ndarray:
    """Euclidean norm (L, H) of all weights of each head."""
    axes = {"w_q": (0, 2), "w_k": (0, 2), "w_v": (0, 2), "w_o": (1, 2)}
    layers = [params[f"block_{layer}"]["attention"] for layer in range(model.num_layers)]
    squares = [
        sum(np.sum(np.asarray(own[name], float) ** 2, axis=axis) for name, axis in axes.items()) for own in layers
    ]
    return np.sqrt(np.stack(squares))


@functools.partial(jax.jit, static_argnames="model")
def _of_batch(model: ModelConfig, params: dict, columns: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over tokens of the norm of what each head writes, and of its largest attention weight, (L, H) each; tokens
    that the second is over."""
    windows, written, largest = engine.Windows(*columns), [], []
    seen = Transformer(model).apply({"params": params}, windows.tokens_BT, windows.segments_BT, want_queries=True)[1]
    inside_BT = windows.segments_BT > 0
    later_BT = inside_BT & (jnp.arange(model.seq_len)[None] > 0)
    for layer in range(model.num_layers):
        w_o_HKD = params[f"block_{layer}"]["attention"]["w_o"].astype(model.dtype)
        # |z W_o| from the Gram matrix of W_o, without the heads' outputs in D dimensions.
        gram_HKJ = jnp.einsum("HKD,HJD->HKJ", w_o_HKD, w_o_HKD)
        z_BTHK = seen["heads"][layer]
        squares_BTH = jnp.einsum("BTHK,HKJ,BTHJ->BTH", z_BTHK, gram_HKJ, z_BTHK)
        written.append(jnp.sum(jnp.where(inside_BT[:, :, None], jnp.sqrt(jnp.maximum(squares_BTH, 0)), 0), (0, 1)))
        most_H = jnp.zeros(model.num_heads, written[-1].dtype)
        for rows, heads, a_BHTS in weights_in_blocks(model, seen, layer, windows.segments_BT):
            most_BHT = jnp.max(a_BHTS[..., 1:], axis=-1, initial=0)  # key 0 is BOS, or stands where BOS does
            most_H = most_H.at[heads].add(jnp.sum(jnp.where(later_BT[rows, None], most_BHT, 0), (0, 2)))
        largest.append(most_H)
    return jnp.stack(written), jnp.stack(largest), jnp.sum(later_BT)


def norms_and_confidence(model: ModelConfig, params: dict, windows: EvalWindows) -> tuple[np.ndarray, np.ndarray]:
    """(L, H) each: the mean over tokens of the norm of what a head writes, |z_h W_o|; and its confidence, the mean over
    queries of its largest attention weight (Voita et al. 2019, section 4, without the end of sentence: here without
    the first token, and the query that sees no other)."""
    batches = engine.batches(windows, engine.windows_of(model))
    parts = [_of_batch(model, params, columns) for _, columns in batches]
    written, largest, queries = (np.asarray(sum(part), np.float64) for part in zip(*parts, strict=True))
    return written / windows.length.sum(), largest / queries
