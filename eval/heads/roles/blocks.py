"""Texts a block at a time, all blocks of one shape, so that one compiled program serves them.

Dimension key: B text of a block, T position, N link, R relation.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eval.heads.roles.texts import Texts
from mha.transformer import ModelConfig

BUDGET_BYTES = 64 << 20  # what the weights of a block and what is made of them may take
COPIES_OF_WEIGHTS = 4  # that a block holds at once
MOST_TEXTS = 32
FEWEST_RELATIONS = 2  # room for so many, so that texts with few or none share a program


class Block(NamedTuple):
    """Some texts as `of_block` takes them; links are padded with link (0, 0, 0)."""

    tokens_BT: np.ndarray
    length_B: np.ndarray
    document_N: np.ndarray
    query_N: np.ndarray
    key_N: np.ndarray
    relation_N: np.ndarray
    unlinked_BRT: np.ndarray


def block_size(model: ModelConfig, texts: Texts) -> int:
    """Texts at once, within BUDGET_BYTES."""
    one = COPIES_OF_WEIGHTS * model.num_heads * texts.tokens.shape[1] ** 2 * 4
    return max(1, min(MOST_TEXTS, BUDGET_BYTES // one))


def blocks(texts: Texts, size: int, width: int = 0) -> Iterator[tuple[Block, np.ndarray]]:
    """Blocks of `size` texts, the last padded with empty ones, all of one shape; and the numbers of each block's links
    in `texts.links`."""
    count, length = len(texts.tokens), texts.tokens.shape[1] - 1
    per_text = np.bincount(texts.links.document, minlength=count)
    width = size * max(width, int(per_text.max(initial=0)), 1)
    order = np.argsort(texts.links.document, kind="stable")
    ends = np.concatenate([[0], np.cumsum(per_text)])
    for first in range(0, count, size):
        last = min(first + size, count)
        mine = order[ends[first] : ends[last]]
        document, query, key, relation = (np.resize(column[mine], len(mine)) for column in texts.links)
        unlinked = np.ones((size, max(len(texts.relations), FEWEST_RELATIONS), length), np.float32)
        unlinked[document - first, relation, query] = 0
        padded = [np.pad(column, (0, width - len(mine))) for column in (document - first, query, key, relation)]
        tokens = np.pad(texts.tokens[first:last, :-1], ((0, size - last + first), (0, 0)))
        lengths = np.pad(texts.length[first:last], (0, size - last + first))
        unlinked *= (np.arange(length) < lengths[:, None])[:, None]
        yield Block(tokens.astype(np.int32), lengths.astype(np.int32), *padded, unlinked), mine
