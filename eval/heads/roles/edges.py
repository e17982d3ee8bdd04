"""What a head's attention on a role's keys does: how much the loss rises when these edges are taken out of it.

Taken out is A[q, k] v_k alone (Edits, a gate of 0 filled with the output without the edge); the rest of the head's row
stays as it is, which zero and mean ablation of the head do not.

Dimension key: B text of a block, T position, H head, K head width, L layer, N link, S selection of heads, F file.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval.heads.roles.blocks import Block, block_size, blocks
from eval.heads.roles.effects import effects
from eval.heads.roles.texts import Texts, num_queries
from mha.attention import logit_factor
from mha.edits import Edits
from mha.kernels import reference
from mha.transformer import ModelConfig, Transformer
from train.data.relations.language import Links


class Rises(NamedTuple):
    """Sums over the queries with a link, of each file.

    Attributes:
      queries_F: how many.
      rise_SF: nats that their targets' loss rises by.
      linked, others: mean loss in nats of the targets of queries with a link, and of the others; nan of none.
    """

    queries_F: np.ndarray
    rise_SF: np.ndarray
    linked: float
    others: float


def without(
    model: ModelConfig, params: dict, texts: Texts, links: Links, chosen_SLH: np.ndarray, width: int = 0
) -> Rises:
    """Loss at the targets of `links` without these edges in the chosen heads.

    Args:
      params: of one replica.
      links: of one role; edges, each (document, query, key) once.
      chosen_SLH: bool, selections of heads, each taken out at once; where several layers are chosen, a later layer's
        edge is what it is after the earlier ones have gone.
      width: as for `sums.of_model`.
    """
    model = dataclasses.replace(model, attention="reference")  # which shares the weights of the edges
    files, size = texts.num_files, block_size(model, texts)
    one_role = Texts(texts.tokens, texts.length, texts.file, links._replace(relation=0 * links.relation), ("",))
    rise = np.zeros((len(chosen_SLH), files))
    queries, bases, place = np.zeros(files), np.zeros(4), 0
    for block in blocks(one_role, size, model.causal, np.zeros(texts.tokens.shape[1] - 1), width):
        targets = texts.tokens[place : place + size, 1:]
        targets = np.pad(targets, ((0, size - len(targets)), (0, 0))).astype(np.int32)
        file, place = texts.file[place : place + size], place + size
        for selection, chosen_LH in enumerate(chosen_SLH):
            found = _of_block(model, params, targets, jnp.asarray(chosen_LH), block)
            found = {name: np.asarray(value, np.float64) for name, value in found.items()}
            rise[selection] += np.bincount(file, found["rise"][: len(file)], files)
        queries += np.bincount(file, found["queries"][: len(file)], files)
        bases += [found[name].sum() for name in ("linked", "queries", "others", "unlinked")]
    assert queries.sum() == num_queries(links)
    linked, others = (sums / count if count else np.nan for sums, count in bases.reshape(2, 2))
    return Rises(queries, rise, linked, others)


@functools.partial(jax.jit, static_argnames="model")
def _of_block(model: ModelConfig, params, targets_BT, chosen_LH, block: Block) -> dict[str, jax.Array]:
    """By text (B,): `rise` of the loss of queries with a link, `queries` how many, their loss `linked` before, and that
    of the `others`, `unlinked` many; the first token is no query."""
    length = block.tokens_BT.shape[1]
    inside_BT = jnp.arange(length)[None] < block.length_B[:, None]
    segments_BT, scale = inside_BT.astype(jnp.int32), logit_factor(model.logit_scale, model.d_k)
    apply = functools.partial(Transformer(model).apply, {"params": params}, block.tokens_BT, segments_BT)
    places = block.document_N, block.query_N
    linked_BT = jnp.zeros_like(inside_BT).at[places].max(block.there_N > 0)

    def losses(logits_BTV):
        log_p_BTV = jax.nn.log_softmax(logits_BTV)
        return -jnp.take_along_axis(log_p_BTV, targets_BT[..., None], axis=2)[..., 0]

    gates_LH, fill, before_BT = 1 - chosen_LH.astype(jnp.float32), [None] * model.num_layers, None
    for layer in range(model.num_layers):
        logits_BTV, seen = apply(Edits(gates_LH, fill) if layer else None, True)
        before_BT = losses(logits_BTV) if layer == 0 else before_BT
        weights_BHTS = reference.weights(
            seen["query"][layer], seen["key"][layer], scale=scale, causal=model.causal, segments_BT=segments_BT
        )
        weight_NH = block.there_N[:, None] * weights_BHTS[block.document_N, :, block.query_N, block.key_N]
        value_NHK = seen["value"][layer][block.document_N, block.key_N]
        edge_BTHK = jnp.zeros_like(seen["heads"][layer]).at[places].add(weight_NH[..., None] * value_NHK)
        fill[layer] = seen["heads"][layer] - edge_BTHK
    # Gates of layers to come close heads whose fill is not known yet: each turn redoes what it needs.
    after_BT = losses(apply(Edits(gates_LH, fill), False)[0])
    other_BT = inside_BT & ~linked_BT & (jnp.arange(length) > 0)[None]
    summed = {
        "rise": (after_BT - before_BT, linked_BT),
        "linked": (before_BT, linked_BT),
        "others": (before_BT, other_BT),
    }
    found = {name: jnp.where(counted, values, 0).sum(axis=1) for name, (values, counted) in summed.items()}
    return found | {"queries": linked_BT.sum(axis=1), "unlinked": other_BT.sum(axis=1)}


def interval(queries_F: np.ndarray, rise_F: np.ndarray) -> tuple[float, float, float]:
    """The mean rise a query with its 95 % interval, a t over files."""
    found = effects(queries_F, rise_F[None, None], (), 0.0)
    return tuple(float(getattr(found, name)[0, 0]) for name in ("effect", "low", "high"))
