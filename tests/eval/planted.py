"""Transformers with weights by hand that hold one known head among random ones, and documents that it serves.

The residual stream is cut into orthogonal parts: `word` and `place` have one coordinate a token and a position, `one`
is constant, `copied` holds what an early head copies for a later one, `told` what the planted head tells the readout.
Each part that is written has one length, so that an RMSNorm only scales, by a known factor. Logits are SHARP apart.

  places   a logit is a function of (target - key), a sum of cosines whose amplitudes a linear program chooses so that
           all but the wanted distances lie as far below as the head's width allows
  words    match by codes, unit vectors that are as far apart as the width allows; one-hot where it suffices
  nothing  a query without a link falls back to the first token, whose value is 0

Dimension key: D d_model, V vocabulary, T position, H head, K head width, R features of one term of a head's logits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer, weights_in_blocks
from tests.eval import linked_documents as text
from tests.eval.linked_documents import BEGIN, FIRST, Documents

SHARP = 9.0  # logits between a linked key and any other
SAID = 4.0  # logits that a told word has before the others


class Plant(NamedTuple):
    """A model, the head planted in it, and documents with the head's links.

    Attributes:
      config, params: of `Transformer`.
      head: (layer, head) of the plant.
      documents: what it serves.
      sources: the heads, (layer, head), that the plant reads from.
    """

    config: ModelConfig
    params: dict
    head: tuple[int, int]
    documents: Documents
    sources: tuple[tuple[int, int], ...] = ()

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

    def without(self, *heads: tuple[int, int]) -> Edits:
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
    seed: int = 0,
) -> Plant:
    """A model with one head planted.

    Args:
      head: a key of PLANTS.
      num_layers, num_heads, d_k, d_model, vocab_size, seq_len: the model's; by default what suffices.
      num_documents, ragged: how many documents, and whether their lengths differ.
      offset: of `offset` and `offset unseen`: key less query. The second is a masked model, in both directions.
      others: what the other heads and the MLPs write, over what they write as initialised.
      seed: of documents, weights and which head it is.

    Raises:
      ValueError: the widths are too small for the plant.
    """
    if head not in PLANTS:
        raise ValueError(f"there is no plant {head!r}; choose among {', '.join(PLANTS)}.")
    rng = np.random.default_rng([seed, *head.encode()])
    shape = dict(num_layers=num_layers, num_heads=num_heads, vocab=vocab_size, length=seq_len, others=others)
    stream = _Stream(rng, d_k=d_k, d_model=d_model, causal=head != "offset unseen", **shape)
    write = lambda relation: text.write(rng, relation, num_documents, seq_len, ragged)  # noqa: E731
    if head == "offset unseen":
        after = text.permuted(rng, vocab_size)
        documents = text.offset_unseen(rng, offset, after, num_documents, seq_len, ragged)
        return stream.offset(documents, after, {offset})
    return PLANTS[head](stream, rng, write, offset)


class _Stream:
    """The residual stream's parts, and the weights as far as they are set."""

    def __init__(self, rng, *, num_layers, num_heads, d_k, d_model, vocab, length, others, causal):
        self.rng, self.vocab, self.length, self.d_k, self.copied_by = rng, vocab, length, d_k, None
        sizes = {"word": vocab, "place": length, "one": 1, "copied": vocab, "told": vocab}
        ends = np.cumsum(list(sizes.values())).tolist()
        self.at = {name: np.arange(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        width = d_model or ends[-1]
        if width < ends[-1]:
            raise ValueError(
                f"a plant with {vocab} tokens and {length} positions needs d_model={ends[-1]}, not {width}."
            )
        d_ff = (16,) * num_layers
        self.config = ModelConfig(vocab, length, width, num_heads, d_k, d_ff, causal=causal, attention="reference")
        tree = jax.eval_shape(Transformer(self.config).init, jax.random.key(0), jnp.zeros((1, 2), int))["params"]
        self.params = jax.tree.map(self._drawn, tree)
        self.size = np.sqrt(width / 3)  # of each part, so that a word at its place is as long as an RMSNorm makes it
        for layer in range(num_layers):
            block = self.params[f"block_{layer}"]
            for writes, inputs in ((block["attention"]["w_o"], num_heads * d_k), (block["mlp_out"]["kernel"], d_ff[0])):
                writes *= others * np.sqrt(width / inputs / 2 / num_layers)
        embed, places = (self.params[name]["embedding"] for name in ("embed", "positions"))
        embed[:], places[:] = 0, 0
        embed[:, self.at["word"]] = self.size * np.eye(vocab)
        embed[:, self.at["one"]] = self.size
        places[:, self.at["place"]] = self.size * np.eye(length)
        self.params["unembed"]["kernel"][:] = 0

    def _drawn(self, leaf) -> np.ndarray:
        """Ones for the gain of a norm, else normal with variance 1 / d_model."""
        if len(leaf.shape) == 1:
            return np.ones(leaf.shape, np.float32)
        return (self.rng.normal(size=leaf.shape) / np.sqrt(self.config.d_model)).astype(np.float32)

    def read(self, part: str, features: np.ndarray, layer: int) -> np.ndarray:
        """(D, R), which gives row i of `features` where coordinate i of a part is set."""
        parts = 3 + (self.copied_by is not None and layer > self.copied_by[0])
        map_DR = np.zeros((self.config.d_model, features.shape[1]))
        map_DR[self.at[part]] = features * np.sqrt(parts / 3) / self.size
        return map_DR

    def free(self, layer: int) -> tuple[int, int]:
        return layer, int(self.rng.integers(self.config.num_heads))

    def decoded(self, codes: np.ndarray) -> np.ndarray:
        """(V, R), which gives a word's code where `codes` were written."""
        return np.linalg.pinv(codes).T * _length(codes)

    @functools.cache  # noqa: B019
    def codes(self, width: int) -> np.ndarray:
        """(V, width) a unit vector a word, one-hot if they fit, else pushed apart from random ones."""
        if width >= self.vocab:
            return np.eye(self.vocab)
        codes = self.rng.normal(size=(self.vocab, width))
        for _ in range(300):
            codes /= np.linalg.norm(codes, axis=1, keepdims=True)
            cosine = codes @ codes.T - 2 * np.eye(self.vocab)
            push = np.exp(10 * (cosine - cosine.max()))
            codes -= 0.1 * push @ codes / push.sum(1).mean()
        return codes / np.linalg.norm(codes, axis=1, keepdims=True)

    @property
    def last(self) -> int:
        return self.config.num_layers - 1

    def plant(self, where, *terms, value="word", out="told", width=None, open_to=slice(FIRST, None)):
        """Sets the weights of head `where`. Each of `terms` is (read of the query, read of the key), whose product is
        part of the logits; it copies the part `value` of tokens `open_to` into `out`, as codes of a `width`."""
        (layer, head), d_k = where, self.d_k
        query, key = (np.concatenate(maps, axis=1) for maps in zip(*terms, strict=True))
        if query.shape[1] > d_k:
            raise ValueError(f"this plant's logits need d_k={query.shape[1]}, not {d_k}.")
        balance = np.sqrt(np.abs(query).max() / np.abs(key).max()) if query.any() else 1.0
        codes = self.codes(width or d_k)
        shown = np.zeros_like(codes)
        shown[open_to] = codes[open_to] if value == "word" else self.decoded(codes)[open_to]
        attention = self.params[f"block_{layer}"]["attention"]
        pad = lambda map_DR: np.pad(map_DR, ((0, 0), (0, d_k - map_DR.shape[1])))  # noqa: E731
        attention["w_q"][:, head] = pad(query) * np.sqrt(d_k) / balance
        attention["w_k"][:, head] = pad(key) * balance
        attention["w_v"][:, head] = pad(self.read(value, shown, layer))
        attention["w_o"][head] = 0
        attention["w_o"][head, : codes.shape[1], self.at[out]] = codes * self.size / _length(codes)
        if out == "copied":
            self.copied_by = where

    def readout(self, after: np.ndarray, said: float = SAID) -> None:
        """Logits of word after[v] rise by `said` where v was told."""
        parts = 4 + (self.copied_by is not None)
        told, said = np.zeros((self.vocab, self.vocab)), said * _length(self.codes(self.d_k))
        sources = np.flatnonzero(after >= 0)
        told[sources, after[sources]] = said
        self.params["unembed"]["kernel"][self.at["told"]] = told * np.sqrt(parts / 3) / self.size

    def done(self, where, documents: Documents, sources=()) -> Plant:
        return Plant(self.config, self.params, where, documents, tuple(sources))

    # Terms of logits.

    def targets(self, layer: int, wanted: set[int]):
        """Keys at offsets `wanted` SHARP before all others; a lone offset that is not there gives the first token."""
        middle = round(np.mean(sorted(wanted)))
        amplitudes, angles, ripple = _waves(self.length, {o - middle for o in wanted}, (self.d_k - 1) // 2, self.rng)
        aims = np.arange(self.length) + middle
        if len(wanted) == 1:
            aims = np.where((aims < 0) | (aims >= self.length), 0, aims)
        wave = lambda at: np.concatenate([np.cos(np.outer(at, angles)), np.sin(np.outer(at, angles))], axis=1)  # noqa: E731
        query = wave(aims) * np.tile(amplitudes, 2) * SHARP / (1 - ripple)
        return self.read("place", query, layer), self.read("place", wave(np.arange(self.length)), layer)

    def constant(self, layer: int, part: str, logits: np.ndarray, queries: np.ndarray | None = None):
        """A logit for each coordinate of a part of the key, to all queries or those words in `queries` (V,)."""
        query = self.read("one", np.ones((1, 1)), layer)
        if queries is not None:
            query = self.read("word", queries[:, None].astype(float), layer)
        return query, self.read(part, np.asarray(logits, float)[:, None], layer)

    def fall_back(self, layer: int, logit: float):
        return self.constant(layer, "word", logit * (np.arange(self.vocab) == BEGIN))

    def match(self, layer: int, width: int, *, query: str = "word", key: str = "word", ripple: float = 0.0):
        """Logits of keys whose part `key` is the word in the query's `query`, and of the first token where there are
        none; `ripple` is what other terms add at most."""
        codes = self.codes(width)
        cross = np.sort(codes[FIRST:] @ codes[FIRST:].T)[:, -2].max().clip(0)
        size = (2 * SHARP + 4 * ripple) / (1 - cross)
        asks, holds = ({"word": codes, "copied": self.decoded(codes)}[part].copy() for part in (query, key))
        asks[:FIRST], holds[:FIRST] = 0, 0
        return [
            (self.read(query, size * asks, layer), self.read(key, holds, layer)),
            self.fall_back(layer, size - SHARP - 2 * ripple),
        ]

    def not_itself(self, layer: int, waves: int):
        """Takes from a query's own position what `match` gave it and more; also what it moves others at most."""
        amplitudes, angles, ripple = _waves(self.length, {0}, waves, self.rng)
        if ripple > 0.3:
            raise ValueError(f"{waves} waves over {self.length} positions leave a ripple of {ripple:.2f}; widen d_k.")
        size = 2 * SHARP / (1 - 3 * ripple)
        at = np.outer(np.arange(self.length), angles)
        wave = np.concatenate([np.cos(at), np.sin(at)], axis=1)
        term = self.read("place", -size * wave * np.tile(amplitudes, 2), layer), self.read("place", wave, layer)
        return term, size * ripple

    # Plants.

    def offset(self, documents: Documents, after: np.ndarray, wanted: set[int], said: float = SAID) -> Plant:
        where = self.free(int(self.rng.integers(self.config.num_layers)))
        self.plant(where, self.targets(where[0], wanted))
        self.readout(after, said)
        return self.done(where, documents)


def _offset(stream: _Stream, rng, write, offset: int) -> Plant:
    after = text.permuted(rng, stream.vocab)
    documents = write(text.Relation(text.uniform(rng, stream.vocab), text.offsets(offset), after))
    return stream.offset(documents, after, {offset})


def _previous(stream: _Stream, rng, write, offset: int) -> Plant:
    return _offset(stream, rng, write, -1)


def _harmful(stream: _Stream, rng, write, offset: int) -> Plant:
    """Tells a word that never comes."""
    after = text.permuted(rng, stream.vocab)
    relation = text.Relation(text.uniform(rng, stream.vocab), text.offsets(-1), after, never=True)
    return stream.offset(write(relation), after, {-1})


def _idle(stream: _Stream, rng, write, offset: int) -> Plant:
    """Looks at the previous token, and writes nothing."""
    plant = _previous(stream, rng, write, offset)
    plant.params[f"block_{plant.head[0]}"]["attention"]["w_o"][plant.head[1]] = 0
    return plant


def _dead(stream: _Stream, rng, write, offset: int) -> Plant:
    """As it was drawn, but without values."""
    where = stream.free(int(rng.integers(stream.config.num_layers)))
    stream.params[f"block_{where[0]}"]["attention"]["w_v"][:, where[1]] = 0
    after = text.permuted(rng, stream.vocab)
    return stream.done(where, write(text.Relation(text.uniform(rng, stream.vocab), lambda words: [], after)))


def _sink(stream: _Stream, rng, write, offset: int) -> Plant:
    """Looks at the first token, and tells how frequent words are."""
    where = stream.free(int(rng.integers(stream.config.num_layers)))
    share = 1 / np.arange(1, stream.vocab - FIRST + 1)
    share = rng.permutation(share / share.sum())
    draw = lambda words: FIRST + int(rng.choice(len(share), p=share))  # noqa: E731
    relation = text.Relation(draw, lambda words: [0], np.full(stream.vocab, -1), counts=np.r_[1, 1, share])
    stream.plant(where, stream.constant(where[0], "place", SHARP * np.eye(stream.length)[0]), open_to=slice(0, 1))
    kernel = stream.params["unembed"]["kernel"]
    kernel[stream.at["told"][BEGIN], FIRST:] = np.log(share / share.min()) * np.sqrt(4 / 3) / stream.size
    return stream.done(where, write(relation))


def _duplicate(stream: _Stream, rng, write, offset: int) -> Plant:
    where = stream.free(int(rng.integers(stream.config.num_layers)))
    words = np.arange(FIRST, stream.vocab)
    sources, answers = words[: len(words) // 2], words[len(words) // 2 :]

    def draw(so_far):
        known = [word for word in so_far if word in sources]
        return int(rng.choice(known if known and rng.random() < 0.3 else sources))

    after = text.paired(sources, answers, stream.vocab)
    term, ripple = stream.not_itself(where[0], 12)
    match = stream.match(where[0], stream.d_k - 25, ripple=ripple)
    stream.plant(where, term, *match)
    stream.readout(after)
    return stream.done(where, write(text.Relation(draw, text.copies, after)))


def _copies_the_previous(stream: _Stream) -> tuple[int, int]:
    """Plants a head in layer 0 that writes the previous word into `copied`."""
    if not stream.last:
        raise ValueError("heads that build on each other need num_layers of at least 2, not 1.")
    first = stream.free(0)
    stream.plant(first, stream.targets(0, {-1}), out="copied", width=stream.d_k - 1)
    return first


def _induction(stream: _Stream, rng, write, offset: int) -> Plant:
    """K-composition: keys tell what came before them."""
    first, where = _copies_the_previous(stream), stream.free(stream.last)
    stream.plant(where, *stream.match(where[0], stream.d_k - 1, key="copied"))
    after = np.arange(stream.vocab)
    stream.readout(after)
    relation = text.Relation(text.uniform(rng, stream.vocab), text.followers, after, told=0.7)
    return stream.done(where, write(relation), [first])


PLANTS = {
    "previous": _previous,
    "offset": _offset,
    "offset unseen": _offset,
    "induction": _induction,
    "duplicate": _duplicate,
    "dead": _dead,
    "idle": _idle,
    "sink": _sink,
    "harmful": _harmful,
}


def _length(codes: np.ndarray) -> float:
    """Of what writing a word's code gives, in the mean."""
    return np.linalg.norm(codes @ codes.T, axis=1).mean()


def _waves(length: int, wanted: set[int], number: int, rng) -> tuple[np.ndarray, np.ndarray, float]:
    """Amplitudes and angles of cosines whose sum over a distance is, but for a constant, 1 at the wanted distances and
    between -ripple and ripple at all others below `length`; and the ripple. Distances count both ways."""
    period = 2 * length + 8
    if number < 1 or len({abs(d) for d in wanted}) > number:
        raise ValueError(f"{len(wanted)} offsets need d_k of at least {2 * len(wanted) + 1}.")
    distance = np.arange(length + 4)
    hit, best = np.isin(distance, [abs(d) for d in wanted]), None
    for trial in range(8):
        low = np.arange(min(number, period // 2)) + 1
        waves = low if trial == 0 else np.sort(rng.permutation(period // 2)[:number]) + 1
        cosine = np.cos(np.outer(distance, waves) * 2 * np.pi / period)
        less = np.hstack([cosine, np.full((len(distance), 1), -1.0)])  # less the constant
        off = np.full(((~hit).sum(), 1), -1.0)
        below = np.vstack([np.hstack([less[~hit], off]), np.hstack([-less[~hit], off])])
        equal = np.hstack([less[hit], np.zeros((hit.sum(), 1))])
        price = np.eye(len(equal[0]))[-1]
        found = linprog(price, below, np.zeros(len(below)), equal, np.ones(len(equal)), bounds=(None, None))
        if found.status == 0 and (best is None or found.fun < best[2]):
            best = found.x[:-2], waves * 2 * np.pi / period, float(found.fun)
    if best is None or best[2] > 1 - 1e-3:
        raise ValueError(f"{number} waves cannot tell offsets {sorted(wanted)} apart over {length} positions.")
    return best
