"""One jitted pass over texts that adds up, for every head, all that its roles and its profile are computed from.

Attention is seen a block of texts at a time, and no weights are kept. `of_attention` takes weights of whatever model;
`of_model` runs a Transformer of ours and gives it each layer's.

Dimension key: B text of a block, T query, S key, H head, K head width, D d_model, L layer, N link, R relation, F file,
O offset.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval.heads.roles import profile as profile_of
from eval.heads.roles.blocks import Block, block_size, blocks
from eval.heads.roles.texts import Texts
from mha.attention import logit_factor
from mha.kernels import reference
from mha.transformer import ModelConfig, Transformer

NEAR = (1, 2, 3)  # offsets of the previous token and of the local window


class Sums(NamedTuple):
    """What was added up over texts, of L layers of H heads each.

    Attributes:
      queries_RF: queries with a link, of each relation in each file.
      mass_RLHF: their attention on linked keys.
      permuted_RLHF: the same if the documents are permuted: what other documents' attention at the same positions has
        on these keys, where few others are so long, their attention at the same offset.
      elsewhere_RLHF: what the linked keys get from the same document's queries without a link.
      top_RLHF: queries whose largest weight is on a linked key.
      tokens_F: queries of each file, whatever their links, but for the first of each text.
      near_OLHF: attention at each offset of NEAR (from those queries).
      next_LHF: attention on the next token; 0 in a causal model.
      own_LHF: attention at the offset that each head was given.
      uniform_F: what a row that is uniform over what is visible has on the offsets NEAR.
      offsets_LHO: mean attention at each offset, from -(T - 1) to T - 1, over the queries whose key is there.
      reach_O: the share of queries whose key is there.
      profile: what `profile.MEASURES` lists, (L, H, F) each, summed over the queries of `tokens_F`; empty if not asked
        for.
    """

    queries_RF: np.ndarray
    mass_RLHF: np.ndarray
    permuted_RLHF: np.ndarray
    elsewhere_RLHF: np.ndarray
    top_RLHF: np.ndarray
    tokens_F: np.ndarray
    near_OLHF: np.ndarray
    next_LHF: np.ndarray
    own_LHF: np.ndarray
    uniform_F: np.ndarray
    offsets_LHO: np.ndarray
    reach_O: np.ndarray
    profile: dict[str, np.ndarray]


FEWEST_OTHERS = 20  # documents as long, for a mean pattern at the same positions


class Profile(NamedTuple):
    """What is wanted beside roles: `own` at `offset_LH`, the offset (query less key) of each head, 0 where None; and
    what `profile.MEASURES` lists, with the tokens that are `delimiters`."""

    offset_LH: np.ndarray | None = None
    delimiters: tuple[int, ...] = ()


def of_model(model: ModelConfig, params: dict, texts: Texts, profile: Profile | None = None, width: int = 0) -> Sums:
    """The sums of one replica.

    Args:
      params: its weights.
      profile: None for the roles alone.
      width: most links of a text, where many calls share one program; 0: those of `texts`.
    """
    offset_LH, parts_V = np.zeros((model.num_layers, model.num_heads), np.int32), np.zeros(model.vocab_size, np.float32)
    if profile is not None:
        offset_LH = offset_LH if profile.offset_LH is None else np.asarray(profile.offset_LH, np.int32)
        parts_V[list(profile.delimiters)] = 1
    counts_V = np.zeros(model.vocab_size, np.float32)
    if texts.counts is not None:
        counts_V[: len(texts.counts)] = texts.counts[: model.vocab_size]
    model = dataclasses.replace(model, attention="reference")  # which shares the weights that are looked at
    run = functools.partial(_of_block, model, profile is not None, params, offset_LH, counts_V, parts_V)
    return _added(run, texts, model.causal, block_size(model, texts), width)


def of_attention(weights_NLHTS: np.ndarray, texts: Texts, causal: bool, offset_LH: np.ndarray | None = None) -> Sums:
    """The sums of attention weights (texts, layers, heads, T, S) that are given whole, without a profile; rows of zeros
    where a text has ended."""
    layers, size = weights_NLHTS.shape[1], 8
    offset_LH = np.zeros(weights_NLHTS.shape[1:3], np.int32) if offset_LH is None else np.asarray(offset_LH, np.int32)
    first = itertools.count(0, size)

    def run(block: Block):
        weights = weights_NLHTS[(begin := next(first)) : begin + size]
        weights = np.pad(weights, [(0, size - len(weights))] + [(0, 0)] * 4)
        found = [_of_weights(weights[:, layer], offset_LH[layer], block, causal) for layer in range(layers)]
        return jax.tree.map(lambda *each: jnp.stack(each), *found)

    return _added(run, texts, causal, size, 0)


@functools.partial(jax.jit, static_argnames=("model", "profile"))
def _of_block(model: ModelConfig, profile: bool, params, offset_LH, counts_V, delimiter_V, block: Block):
    length = block.tokens_BT.shape[1]
    segments_BT = (jnp.arange(length)[None] < block.length_B[:, None]).astype(jnp.int32)
    applied = Transformer(model).apply({"params": params}, block.tokens_BT, segments_BT, None, True)
    seen, scale, layers = applied[1], logit_factor(model.logit_scale, model.d_k), []
    for layer, (q_BTHK, k_BSHK) in enumerate(zip(seen["query"], seen["key"], strict=True)):
        weights = reference.weights(q_BTHK, k_BSHK, scale=scale, causal=model.causal, segments_BT=segments_BT)
        found = _of_layer(weights, offset_LH[layer], block, model.causal)
        if profile:
            output = profile_of.of_output(
                seen["heads"][layer], params[f"block_{layer}"]["attention"]["w_o"], segments_BT
            )
            found |= output | profile_of.of_weights(weights, block, counts_V, delimiter_V, model.causal)
        layers.append(found)
    return jax.tree.map(lambda *each: jnp.stack(each), *layers)


def _of_layer(weights_BHTS, offset_H, block: Block, causal: bool) -> dict[str, jax.Array]:
    """The sums of one layer over a block: by relation and text (R, H, B), by text (H, B), and the pattern (H, T, S)."""
    length, document, query, key = weights_BHTS.shape[2], block.document_N, block.query_N, block.key_N
    columns_BHRS = jnp.einsum("BHTS,BRT->BHRS", weights_BHTS, block.unlinked_BRT)
    mass_NH = weights_BHTS[document, :, query, key]
    top_NH = mass_NH >= weights_BHTS.max(axis=3)[document, :, query]
    diagonal = lambda offset: jnp.diagonal(weights_BHTS, -offset, 2, 3).sum(2).T  # noqa: E731
    own_HT = jnp.arange(length)[None] - offset_H[:, None]
    inside_HT = (own_HT >= 0) & (own_HT < length) & (jnp.arange(length) > 0)[None]
    own_BHT = jnp.take_along_axis(weights_BHTS, jnp.clip(own_HT, 0, length - 1)[None, :, :, None], axis=3)[..., 0]
    return {
        "mass": _by_text(mass_NH, block),
        "top": _by_text(top_NH.astype(jnp.float32), block),
        "elsewhere": _by_text(columns_BHRS[document, :, block.relation_N, key] * block.free_N[:, None], block),
        "own pattern": _by_text(mass_NH * block.others_N[:, None], block),
        "pattern": weights_BHTS.sum(axis=0),
        "near": jnp.stack([diagonal(offset) for offset in NEAR]),
        "next": jnp.zeros(weights_BHTS.shape[1::-1]) if causal else diagonal(-1) - weights_BHTS[:, :, 0, 1].T,
        "own": jnp.where(inside_HT[None], own_BHT, 0).sum(2).T,
    }


_of_weights = functools.partial(jax.jit, static_argnames="causal")(_of_layer)


def _by_text(values_NH: jax.Array, block: Block) -> jax.Array:
    """Sums over the links of each relation and text, (R, H, B)."""
    size, relations, _ = block.unlinked_BRT.shape
    group_N = block.relation_N * size + block.document_N
    summed = jax.ops.segment_sum(values_NH * block.there_N[:, None], group_N, relations * size)
    return jnp.swapaxes(summed.reshape(relations, size, -1), 1, 2)


@jax.jit
def _at_links(values_LHTS: jax.Array, block: Block) -> jax.Array:
    """Sums of what stands at the links' places, (L, R, H, B)."""
    at_link = lambda values_HTS: _by_text(values_HTS[:, block.query_N, block.key_N].T, block)  # noqa: E731
    return jax.lax.map(at_link, values_LHTS)


@jax.jit
def _diagonals(values_LHTS: jax.Array) -> jax.Array:
    """(L, H, 2 T - 1): sums of the entries at offset (query less key) -(T - 1) ... T - 1, the first query aside."""
    length = values_LHTS.shape[-1]

    def one(values_TS):
        shifted = jnp.pad(values_TS.at[0].set(0)[:, ::-1], ((0, 0), (0, length)))  # row q begins q places later
        return shifted.ravel()[: length * (2 * length - 1)].reshape(length, -1).sum(axis=0)

    return jax.lax.map(lambda layer: jax.lax.map(one, layer), values_LHTS)


_add = functools.partial(jax.jit, donate_argnums=0)(jnp.add)


def _added(run: Callable[[Block], dict], texts: Texts, causal: bool, size: int, width: int) -> Sums:
    """The sums over all blocks, by relation and file."""
    relations, files, count = len(texts.relations), texts.num_files, len(texts.tokens)
    length = texts.tokens.shape[1] - 1
    reach_T = np.cumsum(np.bincount(texts.length, minlength=length + 1)[::-1])[::-1][1:]  # texts longer than t
    others_T = np.where(reach_T > FEWEST_OTHERS, 1 / np.maximum(reach_T - 1, 1), 0)
    by_text, pattern = {}, None
    for block in blocks(texts, size, causal, others_T, width):
        found = run(block)
        more = found.pop("pattern")
        pattern = more if pattern is None else _add(pattern, more)
        for name, value in found.items():
            by_text.setdefault(name, []).append(np.asarray(value))
    asked_O = _asked(reach_T, causal)
    offsets = np.asarray(_diagonals(pattern), np.float64) / np.where(asked_O > 0, asked_O, math.nan)
    expected = _expected(pattern, others_T, offsets)
    by_text["pattern"] = [
        np.asarray(_at_links(expected, block)) for block in blocks(texts, size, causal, others_T, width)
    ]
    of_file = {
        name: _by_file(np.concatenate(parts, axis=-1)[..., :count].astype(np.float64), texts.file, files)
        for name, parts in by_text.items()
    }
    of_role = {
        name: np.moveaxis(of_file.pop(name)[:, :relations], 1, 0)
        for name in ("mass", "pattern", "own pattern", "elsewhere", "top")
    }
    asked = np.unique(np.stack([texts.links.relation, texts.links.document, texts.links.query]), axis=1)
    queries = np.zeros((relations, files))
    np.add.at(queries, (asked[0], texts.file[asked[1]]), 1)
    per_file = lambda values_N: _by_file(np.asarray(values_N, float), texts.file, files)  # noqa: E731
    return Sums(
        queries,
        of_role["mass"],
        of_role["pattern"] - of_role["own pattern"],
        of_role["elsewhere"],
        of_role["top"],
        per_file(np.maximum(texts.length - 1, 0)),
        np.moveaxis(of_file.pop("near"), 1, 0),
        of_file.pop("next"),
        of_file.pop("own"),
        per_file(_uniform(texts.length, causal)),
        offsets,
        asked_O / max(np.maximum(texts.length - 1, 0).sum(), 1),
        of_file,
    )


def _by_file(values: np.ndarray, file_N: np.ndarray, files: int) -> np.ndarray:
    """Sums of `values` (..., N) over the texts of each file, (..., F)."""
    order = np.argsort(file_N, kind="stable")
    present, first = np.unique(file_N[order], return_index=True)
    summed = np.zeros((*values.shape[:-1], files))
    summed[..., present] = np.add.reduceat(values[..., order], first, axis=-1)
    return summed


def _asked(reach_T: np.ndarray, causal: bool) -> np.ndarray:
    """How many queries, the first of each text aside, have a key at each offset."""
    length = len(reach_T)
    query, key = np.mgrid[1:length, :length]
    there = reach_T[np.maximum(query, key)] * (key <= query if causal else 1)
    return np.bincount((query - key + length - 1).ravel(), there.ravel(), 2 * length - 1)


def _expected(pattern_LHTS: jax.Array, others_T: np.ndarray, offsets_LHO: np.ndarray) -> jax.Array:
    """What other texts' attention has at each place, but for a text's own part of it; or, where few others reach, what
    all texts have at its offset. (L, H, T, S)."""
    length = len(others_T)
    offset_TS = np.arange(length)[:, None] - np.arange(length) + length - 1
    at_offset = jnp.asarray(np.nan_to_num(offsets_LHO), jnp.float32)[:, :, offset_TS] if (others_T == 0).any() else 0
    known_TS = jnp.asarray(others_T[np.maximum.outer(*[np.arange(length)] * 2)], jnp.float32)[None, None]
    return jnp.where(known_TS > 0, pattern_LHTS * known_TS, jnp.broadcast_to(at_offset, pattern_LHTS.shape))


def _uniform(length_N: np.ndarray, causal: bool) -> np.ndarray:
    """Of each text, what rows that are uniform over what is visible have on the offsets NEAR, from its queries but the
    first."""
    query = np.arange(1, length_N.max(initial=1))
    reached = sum((query >= offset).astype(float) for offset in NEAR)
    if causal:
        return np.concatenate([[0.0, 0.0], np.cumsum(reached / (query + 1))])[length_N]
    return np.concatenate([[0.0, 0.0], np.cumsum(reached)])[length_N] / np.maximum(length_N, 1)
