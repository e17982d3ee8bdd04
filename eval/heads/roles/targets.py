"""What the targets of texts cost, and those of queries with a link against the others.

Dimension key: B text of a block, N text, T position, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eval.heads.roles.blocks import block_size
from eval.heads.roles.texts import Texts
from mha.transformer import ModelConfig, Transformer
from train.data.relations.language import Links


def losses(model: ModelConfig, params: dict, texts: Texts) -> np.ndarray:
    """Negative log-likelihood of each target of a causal model, nats (N, T), nan behind a text's end."""
    found, size = [], block_size(model, texts)
    inside_NT = np.arange(texts.tokens.shape[1] - 1) < texts.length[:, None]
    for first in range(0, len(texts.tokens), size):
        tokens, inside = texts.tokens[first : first + size], inside_NT[first : first + size]
        more = (0, size - len(tokens)), (0, 0)
        block = _of_block(model, params, np.int32(np.pad(tokens, more)), np.int32(np.pad(inside, more)))
        found.append(np.asarray(block)[: len(tokens)])
    return np.where(inside_NT, np.concatenate(found), np.nan)


@functools.partial(jax.jit, static_argnames="model")
def _of_block(model: ModelConfig, params, tokens_BT, segments_BT):
    logits_BTV, _ = Transformer(model).apply({"params": params}, tokens_BT[:, :-1], segments_BT)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), tokens_BT[:, 1:, None], axis=2)[..., 0]


def split(losses_NT: np.ndarray, links: Links) -> tuple[float, float]:
    """The mean loss of the targets of queries with a link, and of the others; nan of none. The first token is no
    query."""
    linked_NT = np.zeros(losses_NT.shape, bool)
    linked_NT[links.document, links.query] = True
    asked_NT = np.isfinite(losses_NT) & (np.arange(losses_NT.shape[1]) > 0)
    mean = lambda values: float(values.mean()) if len(values) else float("nan")  # noqa: E731
    return mean(losses_NT[linked_NT]), mean(losses_NT[asked_NT & ~linked_NT])
