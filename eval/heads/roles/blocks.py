"""Texts a block at a time, all blocks of one shape, so that one compiled program serves them.

Dimension key: B text of a block, T position, N link, R relation.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eval.heads.roles.texts import Texts
from mha.transformer import ModelConfig

BUDGET_BYTES = 16 << 20  # of the weights of a block and what is made of them: what stays in a cache is twice as fast
COPIES_OF_WEIGHTS = 4  # that a block holds at once
MOST_TEXTS = 32
FEWEST_RELATIONS = 2  # room for so many, so that texts with few or none share a program


class Block(NamedTuple):
    """Some texts; links are padded with link (0, 0, 0).

    Attributes:
      there_N: 1 for a link, 0 for padding.
      free_N: 1 / the number of its text's queries that see a link's key and have no link of its relation; 0 if none do.
      others_N: the weight of each other text that has both query and key.
      unlinked_BRT: 1 for a query without a link of the relation, 0 for others and behind a text's end.
    """

    tokens_BT: np.ndarray
    length_B: np.ndarray
    document_N: np.ndarray
    query_N: np.ndarray
    key_N: np.ndarray
    relation_N: np.ndarray
    there_N: np.ndarray
    free_N: np.ndarray
    others_N: np.ndarray
    unlinked_BRT: np.ndarray


def block_size(model: ModelConfig, texts: Texts) -> int:
    """Texts at once, within BUDGET_BYTES."""
    one = COPIES_OF_WEIGHTS * model.num_heads * texts.tokens.shape[1] ** 2 * 4
    return max(1, min(MOST_TEXTS, BUDGET_BYTES // one))


def blocks(texts: Texts, size: int, causal: bool, others_T: np.ndarray, width: int = 0) -> Iterator[Block]:
    """Blocks of `size` texts, the last padded with empty ones, all of one shape.

    Args:
      others_T: the weight of each other text where a mean over them is taken, by the later of query and key.
      width: room for so many links a text; 0: for the most that any has.
    """
    count, length = len(texts.tokens), texts.tokens.shape[1] - 1
    per_text = np.bincount(texts.links.document, minlength=count)
    width = size * max(width, int(per_text.max(initial=0)), 1)
    order = np.argsort(texts.links.document, kind="stable")
    ends = np.concatenate([[0], np.cumsum(per_text)])
    for first in range(0, count, size):
        last = min(first + size, count)
        document, query, key, relation = (column[order[ends[first] : ends[last]]] for column in texts.links)
        lengths = np.pad(texts.length[first:last], (0, size - last + first)).astype(np.int32)
        unlinked = np.ones((size, max(len(texts.relations), FEWEST_RELATIONS), length), np.float32)
        unlinked[document - first, relation, query] = 0
        unlinked *= (np.arange(length) < lengths[:, None])[:, None]
        seeing = np.cumsum(unlinked[..., ::-1], axis=2)[..., ::-1] if causal else unlinked.sum(axis=2, keepdims=True)
        free = np.broadcast_to(seeing, unlinked.shape)[document - first, relation, key]
        free = np.divide(1, free, out=np.zeros(len(free), np.float32), where=free > 0)
        columns = (
            document - first,
            query,
            key,
            relation,
            np.ones(len(key), np.float32),
            free,
            others_T[np.maximum(query, key)],
        )
        padded = [np.pad(column, (0, width - len(key))) for column in columns]
        tokens = np.pad(texts.tokens[first:last, :-1], ((0, size - last + first), (0, 0)))
        integers, floats = [column.astype(np.int32) for column in padded[:4]], [np.float32(each) for each in padded[4:]]
        yield Block(tokens.astype(np.int32), lengths, *integers, *floats, unlinked)
