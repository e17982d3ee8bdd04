"""Transformers with weights by hand that hold one known head among random ones, and documents that it serves.

A plant's queries that have a link look there, its other queries at the first token, whose value is 0. So closing it
raises the loss at the former and leaves it at the latter.

Dimension key: L layer, N document, T position, H head, V vocabulary.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer, weights_in_blocks
from tests.eval import linked_documents as text
from tests.eval.linked_documents import BEGIN, FIRST, Documents, Relation
from tests.eval.residual_stream import RECENT, SHARP, Head, Stream


class Plant(NamedTuple):
    """A model, the head planted in it, and documents with the head's links.

    Attributes:
      config, params: of `Transformer`.
      head: of the plant.
      documents: what it serves.
      sources: the heads that the plant reads from.
    """

    config: ModelConfig
    params: dict
    head: Head
    documents: Documents
    sources: tuple[Head, ...] = ()

    def losses(self, edits: Edits | None = None) -> np.ndarray:
        """Negative log-likelihood of each target in nats (N, T), 0 where nothing is asked."""
        logits, _ = self.forward(edits)
        targets = self.documents.targets
        scores = np.asarray(jax.nn.log_softmax(logits))
        return np.where(targets >= 0, -np.take_along_axis(scores, targets[..., None].clip(0), -1)[..., 0], 0)

    def forward(self, edits: Edits | None = None) -> tuple[jax.Array, dict]:
        """Logits and intermediates of the documents, queries and keys among them."""
        return _forward(
            self.config, self.params, self.documents.tokens, self.documents.segments, edits or self.without()
        )

    def attention(self) -> np.ndarray:
        """(L, N, H, T, T)."""
        seen, segments = self.forward()[1], jnp.asarray(self.documents.segments)
        return np.stack(
            [
                np.concatenate([np.asarray(a) for _, _, a in weights_in_blocks(self.config, seen, layer, segments)])
                for layer in range(self.config.num_layers)
            ]
        )

    def without(self, *heads: Head) -> Edits:
        """Edits that close `heads`."""
        gates = np.ones((self.config.num_layers, self.config.num_heads), np.float32)
        for head in heads:
            gates[head] = 0
        return Edits(gates)


@functools.partial(jax.jit, static_argnames="config")
def _forward(config, params, tokens, segments, edits):
    return Transformer(config).apply({"params": params}, tokens, segments, edits, want_queries=True)


def planted(
    head: str,
    *,
    num_layers: int = 2,
    num_heads: int = 4,
    d_k: int = 48,
    d_model: int | None = None,
    vocab_size: int = 24,
    seq_len: int = 32,
    num_documents: int = 24,
    offset: int = -3,
    ragged: bool = False,
    others: float = 0.05,
    said: float = 4.0,
    seed: int = 0,
) -> Plant:
    """A model with one head planted.

    Args:
      head: a key of PLANTS.
      num_layers, num_heads, d_k, d_model, vocab_size, seq_len: the model's; by default what suffices.
      num_documents, ragged: how many documents, and whether their lengths differ.
      offset: of `offset` and `offset unseen`: key less query. The second is a masked model, in both directions.
      others: what the other heads and the MLPs write, over what they write as initialised.
      said: logits of a told word before the others.
      seed: of documents, weights and which head it is.

    Raises:
      ValueError: the widths are too small for the plant.
    """
    if head not in PLANTS:
        raise ValueError(f"there is no plant {head!r}; choose among {', '.join(PLANTS)}.")
    rng = np.random.default_rng([seed, *head.encode()])
    unseen, sizes = head == "offset unseen", (num_documents, seq_len, ragged)
    shape = dict(num_layers=num_layers, num_heads=num_heads, d_k=d_k, vocab=vocab_size, length=seq_len)
    stream = Stream(rng, **shape, d_model=d_model, others=others, said=said, causal=not unseen)
    if head in CIRCUITS:
        source = stream.copy_the_previous()
        sources, where = (source,), stream.free(stream.last)
    else:
        sources, where = (), stream.free(int(rng.integers(num_layers)))
    relation = PLANTS[head](stream, rng, where, offset)
    drawn = text.offset_unseen(rng, offset, relation.after, *sizes) if unseen else text.write(rng, relation, *sizes)
    return Plant(stream.config, stream.params, where, drawn, sources)


def _offset(stream: Stream, rng, where: Head, offset: int) -> Relation:
    after = text.permuted(rng, stream.vocab)
    stream.plant(where, stream.targets(where[0], {offset}))
    stream.readout(after)
    return Relation(text.uniform(rng, stream.vocab), text.offsets(offset), after)


def _previous(stream: Stream, rng, where: Head, _) -> Relation:
    return _offset(stream, rng, where, -1)


def _harmful(stream: Stream, rng, where: Head, _) -> Relation:
    """Tells a word that never comes."""
    return dataclasses.replace(_offset(stream, rng, where, -1), never=True)


def _idle(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks at the previous token, and writes nothing."""
    relation = _offset(stream, rng, where, -1)
    stream.params[f"block_{where[0]}"]["attention"]["w_o"][where[1]] = 0
    return relation


def _dead(stream: Stream, rng, where: Head, _) -> Relation:
    """As it was drawn, but without values."""
    stream.params[f"block_{where[0]}"]["attention"]["w_v"][:, where[1]] = 0
    return Relation(text.uniform(rng, stream.vocab), lambda words: [], np.full(stream.vocab, -1))


def _local(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks at the three tokens before, alike; one of them tells the next."""
    near, after = (-3, -2, -1), text.permuted(rng, stream.vocab)
    stream.plant(where, stream.targets(where[0], set(near)))
    stream.readout(after, share=1 / 3)
    return Relation(text.uniform(rng, stream.vocab), text.offsets(*near), after)


def _broad(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks at all tokens alike, in documents of four words each."""
    stream.plant(where, stream.constant(where[0], "place", np.zeros(stream.length)))
    stream.readout(np.arange(stream.vocab), share=1 / 4)

    def draw(words):
        known = sorted(set(words[1:]))
        return int(rng.choice(known if len(known) == 4 else np.arange(FIRST, stream.vocab)))

    return Relation(draw, lambda words: [], np.full(stream.vocab, -1))


def _sink(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks at the first token, and tells how frequent words are."""
    share = rng.permutation(1 / np.arange(1, stream.vocab - FIRST + 1))
    share /= share.sum()
    stream.plant(where, stream.constant(where[0], "place", SHARP * np.eye(stream.length)[0]), open_to=slice(0, 1))
    stream.say(np.outer(np.arange(stream.vocab) == BEGIN, np.r_[0, 0, np.log(share / share.min())]))
    nothing = np.full(stream.vocab, -1)
    draw = lambda words: FIRST + int(rng.choice(len(share), p=share))  # noqa: E731
    return Relation(draw, lambda words: [0], nothing, counts=np.r_[1, 1, share])


def _rare(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks at the rarest token so far, whose word tells one of the frequent ones."""
    rare, frequent = text.halves(stream.vocab)
    rank = np.r_[0, 0, np.arange(stream.vocab - FIRST, 0, -1)]  # words in order, the first the rarest
    stream.plant(where, stream.constant(where[0], "word", RECENT * rank))
    share = 1 / np.arange(1, len(rare) + 1)[::-1] ** 1.5

    def draw(words):
        return int(rng.choice(rare, p=share / share.sum()) if rng.random() < 0.3 else rng.choice(frequent))

    def keys(words):
        return [at for at, word in enumerate(words) if rank[word] == max(rank[words])]

    after = text.paired(rare, frequent, stream.vocab)
    stream.readout(after)
    return Relation(draw, keys, after, told=0.6, counts=2.0**-rank)


def _duplicate(stream: Stream, rng, where: Head, _) -> Relation:
    sources, answers = text.halves(stream.vocab)

    def draw(words):
        known = [word for word in words if word in sources]
        return int(rng.choice(known if known and rng.random() < 0.3 else sources))

    stream.plant(where, *stream.copies_but_for(where[0], 0))
    after = text.paired(sources, answers, stream.vocab)
    stream.readout(after)
    return Relation(draw, text.copies, after)


def _syntactic(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks from a word of one class to the latest of another."""
    dependents, governors, answers = np.array_split(np.arange(FIRST, stream.vocab), 3)
    kinds, after = (dependents, governors, answers), text.paired(governors, answers, stream.vocab)
    stream.look_back(where, [(dependents, governors)])
    stream.readout(after)
    draw = lambda words: int(rng.choice(kinds[rng.choice(3, p=[0.3, 0.2, 0.5])]))  # noqa: E731
    return Relation(draw, text.latest([(dependents, governors)]), after)


def _coreference(stream: Stream, rng, where: Head, _) -> Relation:
    """Looks from a pronoun to the latest name of its gender."""
    pronouns, (names, answers) = np.arange(FIRST, FIRST + 2), np.array_split(np.arange(FIRST + 2, stream.vocab), 2)
    pairs, after = [(pronouns[[g]], names[g::2]) for g in (0, 1)], text.paired(names, answers, stream.vocab)
    stream.look_back(where, pairs)
    stream.readout(after)
    kinds = (pronouns, names, answers)
    draw = lambda words: int(rng.choice(kinds[rng.choice(3, p=[0.25, 0.25, 0.5])]))  # noqa: E731
    return Relation(draw, text.latest(pairs), after)


def _induction(stream: Stream, rng, where: Head, _) -> Relation:
    """K-composition: a key is known by the word before it."""
    stream.plant(where, *stream.match(where[0], stream.d_k - 1, key="copied"))
    after = np.arange(stream.vocab)
    stream.readout(after)
    return Relation(text.uniform(rng, stream.vocab), text.followers, after, told=0.7)


def _query_composition(stream: Stream, rng, where: Head, _) -> Relation:
    """A query looks for other copies of the word before it."""
    stream.plant(where, *stream.copies_but_for(where[0], -1, query="copied"))
    after = text.permuted(rng, stream.vocab)
    stream.readout(after)
    return Relation(text.uniform(rng, stream.vocab), text.other_copies_of_the_one_before, after)


def _value_composition(stream: Stream, rng, where: Head, _) -> Relation:
    """What two tokens back was copied from the one before it is told."""
    stream.plant(where, stream.targets(where[0], {-2}), value="copied", width=stream.d_k - 1)
    after = text.permuted(rng, stream.vocab)
    stream.readout(after, width=stream.d_k - 1)
    two_back = lambda words: [len(words) - 3][: len(words) > 3]  # noqa: E731
    return Relation(text.uniform(rng, stream.vocab), two_back, after, says=-1)


CIRCUITS = {  # of two layers: a head of the first writes the previous word into `copied`
    "induction": _induction,
    "query composition": _query_composition,
    "value composition": _value_composition,
}
PLANTS = CIRCUITS | {
    "previous": _previous,
    "offset": _offset,
    "offset unseen": _offset,
    "local": _local,
    "duplicate": _duplicate,
    "rare": _rare,
    "syntactic": _syntactic,
    "coreference": _coreference,
    "sink": _sink,
    "broad": _broad,
    "dead": _dead,
    "idle": _idle,
    "harmful": _harmful,
}
