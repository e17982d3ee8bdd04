"""One jitted pass over texts that adds up, for every head, all that its roles and its profile are computed from.

Attention is seen a block of texts at a time, and no weights are kept. `of_attention` takes weights of whatever model;
`of_model` runs a Transformer of ours and gives it each layer's.

Dimension key: B text of a block, T query, S key, H head, K head width, D d_model, L layer, N link, R relation, F file,
O offset.
"""

import dataclasses
import functools
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
      offsets_LHO: mean attention at each offset, from T - 1 back to -(T - 1), over the queries whose key is there.
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
    offset_LH = np.zeros(weights_NLHTS.shape[1:3], int) if offset_LH is None else offset_LH
    texts_per_block, first = 8, iter(range(0, len(weights_NLHTS), 8))

    def run(block: Block):
        begin = next(first)
        weights = weights_NLHTS[begin : begin + texts_per_block]
        weights = np.pad(weights, [(0, texts_per_block - len(weights))] + [(0, 0)] * 4)
        layers = [
            _of_weights(weights[:, layer], jnp.asarray(offset_LH[layer]), block, causal)
            for layer in range(weights.shape[1])
        ]
        return jax.tree.map(lambda *each: np.stack(each), *layers)

    return _added(run, texts, causal, texts_per_block, 0)


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
    """The sums of one layer over a block: by link (H, N), by text (H, B), and the pattern (H, T, S)."""
    length, document, query, key = weights_BHTS.shape[2], block.document_N, block.query_N, block.key_N
    columns_BHRS = jnp.einsum("BHTS,BRT->BHRS", weights_BHTS, block.unlinked_BRT)
    top_BHT = jnp.argmax(weights_BHTS, axis=3)
    diagonal = lambda offset: jnp.diagonal(weights_BHTS, -offset, 2, 3).sum(2).T  # noqa: E731
    own_HT = jnp.arange(length)[None] - offset_H[:, None]
    inside_HT = (own_HT >= 0) & (own_HT < length) & (jnp.arange(length) > 0)[None]
    own_BHT = jnp.take_along_axis(weights_BHTS, jnp.clip(own_HT, 0, length - 1)[None, :, :, None], axis=3)[..., 0]
    return {
        "mass": weights_BHTS[document, :, query, key].T,
        "top": (top_BHT[document, :, query] == key[:, None]).astype(jnp.float32).T,
        "column": columns_BHRS[document, :, block.relation_N, key].T,
        "pattern": weights_BHTS.sum(axis=0),
        "near": jnp.stack([diagonal(offset) for offset in NEAR]),
        "next": jnp.zeros(weights_BHTS.shape[1::-1]) if causal else diagonal(-1) - weights_BHTS[:, :, 0, 1].T,
        "own": jnp.where(inside_HT[None], own_BHT, 0).sum(2).T,
    }


_of_weights = functools.partial(jax.jit, static_argnames="causal")(_of_layer)


def _added(run: Callable[[Block], dict], texts: Texts, causal: bool, size: int, width: int) -> Sums:
    """The sums over all blocks, by relation and file."""
    relations, files, count = len(texts.relations), texts.num_files, len(texts.tokens)
    length, links = texts.tokens.shape[1] - 1, texts.links
    of_link = {"mass": [], "top": [], "column": []}
    of_text, pattern, order = {}, None, []
    for block, mine in blocks(texts, size, width):
        found = run(block)
        more = np.asarray(found.pop("pattern"))
        pattern = more.copy() if pattern is None else np.add(pattern, more, out=pattern)
        found = {name: np.asarray(value, np.float64) for name, value in found.items()}
        order.append(mine)
        for name, parts in of_link.items():
            parts.append(found.pop(name)[..., : len(mine)])
        for name, value in found.items():
            of_text.setdefault(name, []).append(value)
    order = np.concatenate(order) if order else np.zeros(0, int)
    document, query, key, relation = (column[order] for column in links)
    own = {name: np.concatenate(parts, axis=2) for name, parts in of_link.items()}
    group = relation.astype(np.int64) * files + texts.file[document]
    by_group = lambda values: _by_group(values, group, relations * files, (relations, files))  # noqa: E731
    texts_of = {name: np.concatenate(parts, axis=-1)[..., :count] for name, parts in of_text.items()}
    by_file = {name: _by_group(value, texts.file, files, (files,)) for name, value in texts_of.items()}

    reach_T = np.cumsum(np.bincount(texts.length, minlength=length + 1)[::-1])[::-1][1:]  # texts longer than t
    offsets = _mean_offsets(pattern, reach_T, causal)
    permuted = _permuted(own["mass"], pattern, offsets, reach_T, query, key)
    free = _without_a_link(texts, document, key, relation, causal)
    elsewhere = np.divide(own["column"], free, out=np.zeros_like(own["mass"]), where=free > 0)
    asked = np.unique((document.astype(np.int64) * relations + relation) * length + query) // length
    queries = np.zeros((relations, files))
    np.add.at(queries, (asked % max(relations, 1), texts.file[asked // max(relations, 1)]), 1)
    counted = np.maximum(texts.length - 1, 0)
    near = by_file.pop("near")
    return Sums(
        queries,
        *(np.moveaxis(by_group(values), 2, 0) for values in (own["mass"], permuted, elsewhere, own["top"])),
        _by_group(counted.astype(float), texts.file, files, (files,)),
        np.moveaxis(near, 1, 0),
        by_file.pop("next"),
        by_file.pop("own"),
        _by_group(_uniform(texts.length, causal), texts.file, files, (files,)),
        offsets,
        by_file,
    )


def _by_group(values: np.ndarray, group: np.ndarray, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Sums of `values` (..., n) over the groups, (..., *shape)."""
    rows = np.ndindex(values.shape[:-1])
    summed = [np.bincount(group, values[row], count) if count else np.zeros(0) for row in rows]
    return np.reshape(summed, (*values.shape[:-1], *shape))


def _mean_offsets(pattern_LHTS: np.ndarray, reach_T: np.ndarray, causal: bool) -> np.ndarray:
    """(L, H, 2 T - 1): mean attention at offset T - 1 ... -(T - 1), over the queries but the first whose key is there;
    nan where there are none."""
    length, means = len(reach_T), []
    for offset in range(length - 1, -length, -1):
        query = np.arange(max(offset, 1), min(length, length + offset))
        asked = reach_T[np.maximum(query, query - offset)].sum() if len(query) else 0
        total = pattern_LHTS[:, :, query, query - offset].sum(axis=2, dtype=np.float64)
        means.append(total / asked if asked and not (causal and offset < 0) else np.full(total.shape, math.nan))
    return np.stack(means, axis=2)


def _permuted(mass_LHN, pattern_LHTS, offsets_LHO, reach_T, query, key) -> np.ndarray:
    """What the other texts' attention has at each link's positions, or, where fewer than FEWEST_OTHERS are so long,
    all texts' at its offset."""
    others = reach_T[query] - 1
    at_place = (pattern_LHTS[:, :, query, key] - mass_LHN) / np.maximum(others, 1)
    at_offset = offsets_LHO[:, :, len(reach_T) - 1 - (query - key)]
    return np.where(others >= FEWEST_OTHERS, at_place, np.nan_to_num(at_offset))


def _without_a_link(texts: Texts, document, key, relation, causal: bool) -> np.ndarray:
    """For each link, how many queries of its text have no link of its relation and see its key."""
    length = texts.tokens.shape[1] - 1
    free = np.ones((len(texts.tokens), len(texts.relations), length), bool)
    free &= (np.arange(length) < texts.length[:, None])[:, None]
    free[texts.links.document, texts.links.relation, texts.links.query] = False
    seeing = np.cumsum(free[..., ::-1], axis=2)[..., ::-1] if causal else free.sum(axis=2, keepdims=True) + 0 * free
    return seeing[document, relation, key]


def _uniform(length_N: np.ndarray, causal: bool) -> np.ndarray:
    """Of each text, what rows that are uniform over what is visible have on the offsets NEAR, from its queries but the
    first."""
    query = np.arange(1, length_N.max(initial=1))
    reached = sum((query >= offset).astype(float) for offset in NEAR)
    if causal:
        return np.concatenate([[0.0, 0.0], np.cumsum(reached / (query + 1))])[length_N]
    return np.concatenate([[0.0, 0.0], np.cumsum(reached)])[length_N] / np.maximum(length_N, 1)
