"""Path patching: what the loss rises by where later heads read what earlier heads write for another document.

Wang et al. 2022 ('Interpretability in the Wild', section 3.1), by the total path: the heads below a layer give what
they give, but for the sources, which give what they give for the partner document; MLPs between compute again; and what
that changes of the residual stream is added to what chosen heads of the layer read, before its RMSNorm. The direct path
leaves the MLPs as they were: it adds what the sources write for the partner less what they write.

Dimension key: B window, T position, V vocabulary, D d_model, L layer, H head, C condition, N target head, I input
(query, key, value).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mha.edits import Addition, Edits
from mha.transformer import ModelConfig, Transformer

INPUTS = ("query", "key", "value")
NEAREST = 3  # heads among which a random source is drawn for each top source, the nearest in what they write


class Windows(NamedTuple):
    """Windows of documents, each with the window of another document that its sources see instead.

    Attributes:
      tokens: int (B, T + 1), the last the target of the last input.
      length: int (B,), inputs.
      document: int (B,), whose window it is.
      partner: int (B,), the number of another window; sources stay as they are where it has no token.
    """

    tokens: np.ndarray
    length: np.ndarray
    document: np.ndarray
    partner: np.ndarray


class Condition(NamedTuple):
    """What is patched.

    Attributes:
      sources: (layer, head) each, all below the layer that reads.
      kind: for what the targets read it: `q`, `k`, `v`, or several of them.
      target: the one head that reads it; None: all heads of the layer.
      direct: by the direct path instead of the total one.
    """

    sources: tuple[tuple[int, int], ...]
    kind: str
    target: int | None = None
    direct: bool = False


def partners(length: np.ndarray, document: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each window another one, int (B,): of another document, and not a shorter one, wherever that can be."""
    count, random = len(length), np.random.default_rng(seed)
    order = random.permutation(count)
    order = order[np.argsort(-length[order], kind="stable")]
    place = np.arange(count)
    shifted = [np.where(place < shift, place + shift, place - shift) for shift in range(1, 1 + min(64, count // 2))]
    partner = place.copy()
    if shifted:
        partner[order] = order[min(shifted, key=lambda of: np.sum(document[order] == document[order][of]))]
    return partner


def rises(
    model: ModelConfig, params: dict, windows: Windows, layer: int, conditions: list[Condition], batch_size: int = 32
) -> np.ndarray:
    """Rise of the loss in nats, summed over each window's targets, under each condition: float64 (C, B).

    Args:
      params: of one replica of a causal model.
      layer: whose heads read.

    Raises:
      ValueError: a source is not below the layer.
    """
    found = np.empty((len(conditions), len(windows.length)))
    for one_target in (False, True):  # two programs
        chosen = [place for place, each in enumerate(conditions) if (each.target is not None) == one_target]
        if chosen:
            arrays = _arrays(model, layer, [conditions[place] for place in chosen])
            for rows, batch in _batches(windows, batch_size):
                rise_CB = _of_batch(model, layer, params, batch, arrays)
                found[np.ix_(chosen, rows)] = np.asarray(rise_CB, np.float64)[: len(chosen), : len(rows)]
    return found


def output_norms(model: ModelConfig, params: dict, windows: Windows, batch_size: int = 32) -> np.ndarray:
    """Root mean square, over tokens, of the length of what each head writes to the residual stream: float64 (L, H)."""
    sums = [
        np.asarray(_squares(model, params, tokens_BT1, length_B), np.float64)
        for _, (tokens_BT1, length_B, *_) in _batches(windows, batch_size)
    ]
    return np.sqrt(np.sum(sums, axis=0) / windows.length.sum())


def top_sources(z: np.ndarray, count: int) -> list[int]:
    """The `count` sources of the highest summed z, given z (sources, targets); none that writes nothing (nan)."""
    summed = np.where(np.isnan(z).all(axis=1), -np.inf, np.nansum(z, axis=1))
    order = np.argsort(-summed, kind="stable")
    return [int(source) for source in order[:count] if np.isfinite(summed[source])]


def random_sources(top: list[int], norms: np.ndarray, draws: int, seed: int = 0) -> list[list[int]]:
    """`draws` sets of as many sources as `top` and none of them, each drawn among the NEAREST left to one of `top` in
    the log of what they write; none where there are too few others.

    Args:
      norms: what each source writes, (sources,).
    """
    random, others = np.random.default_rng(seed), [source for source in range(len(norms)) if source not in top]
    if len(others) < len(top):
        return []
    logs, sets = np.log(np.maximum(norms, np.finfo(float).tiny)), []
    for _ in range(draws):
        left, drawn = list(others), []
        for source in random.permutation(top):
            left.sort(key=lambda other, source=source: abs(logs[other] - logs[source]))
            drawn.append(left.pop(int(random.integers(min(NEAREST, len(left))))))
        sets.append(sorted(drawn))
    return sets


def _arrays(model: ModelConfig, layer: int, conditions: list[Condition]) -> tuple:
    """Sources (C, L, H), inputs (C, I), direct (C,) and targets (C, N); C a multiple of eight, so that few programs
    serve any number of conditions."""
    count = -(-len(conditions) // 8) * 8
    sources_CLH = np.zeros((count, model.num_layers, model.num_heads), bool)
    kinds_CI, direct_C = np.zeros((count, 3), np.float32), np.zeros(count, bool)
    wide = conditions[0].target is None
    targets_CN = np.tile(np.arange(model.num_heads if wide else 1, dtype=np.int32), (count, 1))
    for row, condition in enumerate(conditions):
        for source in condition.sources:
            if not 0 <= source[0] < layer:
                raise ValueError(f"head {source} is no source of layer {layer}; sources are of layers below it.")
            sources_CLH[row][source] = True
        kinds_CI[row] = [name[0] in condition.kind for name in INPUTS]
        direct_C[row] = condition.direct
        targets_CN[row] = targets_CN[row] if wide else condition.target
    return sources_CLH, kinds_CI, direct_C, targets_CN


def _batches(windows: Windows, batch_size: int):
    """The numbers of a batch's windows, and tokens, lengths, tokens and lengths of their partners; the last batch is
    filled up with windows of no token."""
    for first in range(0, len(windows.length), batch_size):
        rows = np.arange(first, min(first + batch_size, len(windows.length)))
        padding = (0, batch_size - len(rows))
        parts = [
            part
            for numbers in (rows, windows.partner[rows])
            for part in (
                np.pad(windows.tokens[numbers].astype(np.int32), (padding, (0, 0))),
                np.pad(windows.length[numbers].astype(np.int32), padding),
            )
        ]
        yield rows, tuple(parts)


def _segments(model: ModelConfig, length_B):
    return (jnp.arange(model.seq_len)[None] < length_B[:, None]).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="model")
def _squares(model: ModelConfig, params, tokens_BT1, length_B):
    """Squared length of what each head writes, summed over tokens: (L, H)."""
    segments_BT = _segments(model, length_B)
    _, seen = Transformer(model).apply({"params": params}, tokens_BT1[:, :-1], segments_BT)
    squares = []
    for layer, heads_BTHK in enumerate(seen["heads"]):
        writes_BTHD = jnp.einsum("BTHK,HKD->BTHD", heads_BTHK, params[f"block_{layer}"]["attention"]["w_o"])
        squares.append(jnp.einsum("BTHD,BTHD,BT->H", writes_BTHD, writes_BTHD, segments_BT.astype(writes_BTHD.dtype)))
    return jnp.stack(squares)


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def _of_batch(model: ModelConfig, layer: int, params, batch, conditions):
    """(C, B) of one batch."""
    tokens_BT1, length_B, partner_BT1, partner_length_B = batch
    segments_BT = _segments(model, length_B)

    def run(tokens_BT1, segments_BT, edits=None):
        return Transformer(model).apply({"params": params}, tokens_BT1[:, :-1], segments_BT, edits)

    def losses(logits_BTV):
        targets_BTV = jax.nn.one_hot(tokens_BT1[:, 1:], model.vocab_size, dtype=logits_BTV.dtype)
        return optax.softmax_cross_entropy(logits_BTV, targets_BTV)

    logits_BTV, clean = run(tokens_BT1, segments_BT)
    _, other = run(partner_BT1, _segments(model, partner_length_B))
    loss_BT = losses(logits_BTV)
    there_BT11 = ((segments_BT * _segments(model, partner_length_B)) > 0)[:, :, None, None]
    own = clean["heads"][:layer]
    others = [jnp.where(there_BT11, other["heads"][below], z_BTHK) for below, z_BTHK in enumerate(own)]
    gates_LH = jnp.ones((model.num_layers, model.num_heads)).at[:layer].set(0)

    def one(condition):
        sources_LH, kinds_I, direct, targets_N = condition
        fill = [jnp.where(sources_LH[below][:, None], others[below], z_BTHK) for below, z_BTHK in enumerate(own)]
        above = [None] * (model.num_layers - layer)
        _, patched = run(tokens_BT1, segments_BT, Edits(gates_LH, [*fill, *above]))
        direct_BTD = sum(
            jnp.einsum("BTHK,HKD->BTD", fill[below] - own[below], params[f"block_{below}"]["attention"]["w_o"])
            for below in range(layer)
        )
        x_BTD = jnp.where(direct, direct_BTD, patched["residual"][layer] - clean["residual"][layer])
        added = {name: {layer: Addition(x_BTD * kinds_I[i], targets_N)} for i, name in enumerate(INPUTS)}
        logits_BTV, _ = run(tokens_BT1, segments_BT, Edits(**added))
        return jnp.sum(jnp.where(segments_BT > 0, losses(logits_BTV) - loss_BT, 0), axis=1)

    return jax.lax.map(one, conditions)
