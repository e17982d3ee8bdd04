"""What a model says of the answers of a relations language.

Dimension key: R replica, N batch of a dispatch, B window, T position, Q answer of a window, V vocabulary, J bit.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mha.transformer import ModelConfig, Transformer
from train.config import StudyConfig
from train.data.relations import doses
from train.data.relations.language import Documents
from train.replica_axis import advance_first_replicas, over_replicas

SLOTS = 8  # answers of a document are padded to a multiple
BATCH = 64  # documents of a look that are computed at once, at most


def of_seeds(
    model: ModelConfig, params: dict, config: StudyConfig, dose: int, split: str, seeds: Sequence[int]
) -> list[dict]:
    """Of each seed, whose weights are the first rows of `params`, on the documents of its own language that looks of
    `split` are taken on: `loss` and, by name, `relations`, in nats a bit above the floor."""
    texts = [doses.looked_at(config, dose, split, seed) for seed in seeds]
    bits, looks = doses.answer_bits(config.data, dose, seeds[0], model.vocab_size), []
    for seed, loss, apart in zip(seeds, *excess_of(model, params, bits, texts), strict=True):
        names = doses.spoken(config.data, dose, seed).relations
        looks.append({"loss": float(loss), "relations": dict(zip(names, apart.tolist(), strict=True))})
    return looks


def excess_of(
    model: ModelConfig, params: dict, bits_VJ: np.ndarray, texts: list[Documents]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Relational loss less its floor of replicas that each have a text of their own, in nats a bit: of all relational
    bits together (r,), and of each relation, in the language's order.

    Args:
      params: leaves with R rows, of which the first r are looked at; so one program serves all r.
      bits_VJ: answer bits of the words.
      texts: whole documents of each of r replicas, equally many.
    """
    count, rows = len(texts), len(jax.tree.leaves(params)[0])
    texts = [*texts, *[texts[-1]] * (rows - count)]
    tables = [_answers_of(documents) for documents in texts]
    # One shape for all looks, so that one program serves them: the text fills the model's window, with zeros behind;
    # few have more than SLOTS answers. Batches are small, since what they compute stays in the cache.
    slots = -(-max(places.shape[1] for places, _, _ in tables) // SLOTS) * SLOTS
    batch = math.gcd(len(texts[0].tokens), BATCH)
    tokens, places, masks = (
        np.stack([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]).reshape(
            rows, -1, batch, width
        )
        for width, arrays in (
            (model.seq_len + 1, [documents.tokens for documents in texts]),
            (slots, [places for places, _, _ in tables]),
            (slots, [masks for _, masks, _ in tables]),
        )
    )
    length = np.full(tokens.shape[:3], texts[0].tokens.shape[1] - 1, np.int32)
    told = np.asarray(_own_answers(model, np.int32(count), params, bits_VJ, tokens, length, places, masks), np.float64)
    nats, together, apart = told.reshape(rows, -1, *told.shape[3:]), [], []
    for documents, (_, masks, slot), losses in list(zip(texts, tables, nats, strict=True))[:count]:
        questions = documents.questions
        of_answers = losses[..., -2][np.arange(len(masks))[:, None], np.arange(masks.shape[1])][masks > 0].sum()
        together.append((of_answers + questions.log_p.sum()) / len(questions.log_p))
        own = losses[questions.document, slot, questions.bit] + questions.log_p
        apart.append(np.bincount(questions.relation, own) / np.maximum(np.bincount(questions.relation), 1))
    return np.array(together), apart


def _answers_of(documents: Documents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places and masks of the answers of each document, int32 (N, Q), zero beyond the last; and each question's Q."""
    questions, span = documents.questions, documents.tokens.shape[1]
    answers, answer = np.unique(questions.document.astype(np.int64) * span + questions.query, return_inverse=True)
    document, query = np.divmod(answers, span)
    slot = np.arange(len(answers)) - np.searchsorted(document, document)
    places, masks = np.zeros((2, len(documents.tokens), int(slot.max(initial=0)) + 1), np.int32)
    places[document, slot] = query
    masks[document, slot] = np.bincount(answer, 2.0**questions.bit, len(answers))
    return places, masks, slot[answer]


@functools.partial(jax.jit, static_argnames=("model", "replica_map"))
def of_windows(model: ModelConfig, replica_map: str, params, bits_VJ, tokens_NBT1, length_NB, places_NBQ, masks_NBQ):
    """(R, N, B, Q, J + 2); see `_of_replica`."""
    one_replica = functools.partial(_of_replica, model, bits_VJ, (tokens_NBT1, length_NB, places_NBQ, masks_NBQ))
    return over_replicas(one_replica, replica_map)(params)


@functools.partial(jax.jit, static_argnames="model")
def _own_answers(model: ModelConfig, count, params, bits_VJ, tokens_RNBT1, length_RNB, places_RNBQ, masks_RNBQ):
    """(R, N, B, Q, J + 2) of the first `count` replicas, each on a text of its own; see `_of_replica`."""

    def one(_, params, *batches):
        return (), _of_replica(model, bits_VJ, batches, params)

    return advance_first_replicas(one, count, (), params, tokens_RNBT1, length_RNB, places_RNBQ, masks_RNBQ)[1]


def _of_replica(model: ModelConfig, bits_VJ, batches, params):
    """(N, B, Q, J + 2) in nats: -log of the probability that bit j of the answer predicted at each place is right, for
    each j; that all bits of its mask are; that the answer is."""
    index_1T, num_bits = jnp.arange(model.seq_len)[None], bits_VJ.shape[1]
    weights_1J = 2 ** jnp.arange(num_bits)[None]
    has_V = jnp.sum((bits_VJ >= 0) * weights_1J, axis=1)  # which bits an answer has: 0 for other words
    code_V = jnp.sum((bits_VJ == 1) * weights_1J, axis=1)

    def one_batch(batch):
        tokens_BT1, length_B, places_BQ, masks_BQ = batch
        tokens_BT1, segments_BT = tokens_BT1.astype(jnp.int32), (index_1T < length_B[:, None]).astype(jnp.int32)
        logits_BTV, _ = Transformer(model).apply({"params": params}, tokens_BT1[:, :-1], segments_BT)
        log_p_BQV = jax.nn.log_softmax(jnp.take_along_axis(logits_BTV, places_BQ[:, :, None], axis=1))
        target_BQ = jnp.take_along_axis(tokens_BT1[:, 1:], places_BQ, axis=1)
        differ_BQV = code_V[None, None] ^ code_V[target_BQ][:, :, None]
        answers_BQV = (has_V[None, None] == has_V[target_BQ][:, :, None]) & (has_V > 0)[None, None]

        def right(mask_BQ):
            agree_BQV = answers_BQV & (differ_BQV & mask_BQ[:, :, None] == 0)
            return -jax.nn.logsumexp(log_p_BQV, axis=2, where=agree_BQV)

        every = jnp.full_like(masks_BQ, -1)
        one_bit = [jnp.full_like(masks_BQ, 2**bit) for bit in range(num_bits)]
        return jnp.stack([right(mask_BQ) for mask_BQ in (*one_bit, masks_BQ, every)], axis=-1)

    return jax.lax.map(one_batch, batches)
