"""A Transformer whose residual stream is cut into known parts, with random heads among which others are set by hand.

Of the orthogonal parts, `word` and `place` have one coordinate a token and a position, `one` is constant, `copied` is
what an early head copies for a later one, `told` what the planted head tells the readout. Each that is written has one
length, so that an RMSNorm only scales, by a known factor. Logits are SHARP apart.

  places   a logit is a function of (target - key), a sum of cosines whose amplitudes a linear program chooses so that
           all but the wanted distances lie as far below as the head's width allows
  words    match by codes, unit vectors that are as far apart as the width allows; one-hot where it suffices
  nothing  a query without a link falls back to the first token, whose value is 0

Dimension key: D d_model, V vocabulary, T position, R features of one term of a head's logits.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

from mha.transformer import ModelConfig, Transformer
from tests.eval.linked_documents import BEGIN, FIRST

SHARP = 9.0  # logits between a linked key and any other
RECENT = 5.0  # logits between two keys of one kind, the later or rarer before the other

Head = tuple[int, int]  # (layer, head)


class Stream:
    """The residual stream's parts, and the weights as far as they are set."""

    def __init__(self, rng, *, num_layers, num_heads, d_k, d_model, vocab, length, others, said, causal):
        self.rng, self.vocab, self.length, self.d_k, self.said, self.copied_by = rng, vocab, length, d_k, said, None
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
        """(V, R), which gives a word's code where it was copied, as a code of another width."""
        copied = self.codes(self.d_k - 1)
        return np.linalg.pinv(copied @ copied.T) @ codes * _length(copied)

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
        balance = np.sqrt(np.abs(query).max() / np.abs(key).max()) if query.any() and key.any() else 1.0
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

    def readout(self, after: np.ndarray, *, share: float = 1.0, width: int | None = None) -> None:
        """Logits of word after[v] rise by `said` where `share` of what is told, in codes of a `width`, is v."""
        rise_VV, sources = np.zeros((self.vocab, self.vocab)), np.flatnonzero(after >= 0)
        rise_VV[sources, after[sources]] = self.said / share
        self.say(rise_VV * _length(self.codes(width or self.d_k)))

    def say(self, rise_VV: np.ndarray) -> None:
        """Logits rise by row v where v was told."""
        parts = 4 + (self.copied_by is not None)
        self.params["unembed"]["kernel"][self.at["told"]] = rise_VV * np.sqrt(parts / 3) / self.size

    # Terms of logits.

    def targets(self, layer: int, wanted: set[int]):
        """Keys at offsets `wanted` SHARP before all others; a lone offset that is not there gives the first token."""
        middle = round(np.mean(sorted(wanted)))
        amplitudes, angles, ripple = _waves(self.length, {o - middle for o in wanted}, (self.d_k - 1) // 2, self.rng)
        aims = np.arange(self.length) + middle
        if len(wanted) == 1:
            aims = np.where((aims < 0) | (aims >= self.length), 0, aims)
        query = _wave(aims, angles) * np.tile(amplitudes, 2) * SHARP / (1 - ripple)
        return self.read("place", query, layer), self.read("place", _wave(np.arange(self.length), angles), layer)

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

    def copies_but_for(self, layer: int, offset: int, query: str = "word") -> list:
        """Terms of a look at copies of what the query's part `query` holds, but for the key at `offset`."""
        waves, at = self.d_k // 4, np.arange(self.length)
        amplitudes, angles, ripple = _waves(self.length, {0}, waves, self.rng)
        if ripple > 0.3:
            raise ValueError(f"{waves} waves over {self.length} positions leave a ripple of {ripple:.2f}; widen d_k.")
        size = 2 * SHARP / (1 - 3 * ripple)  # takes what a match gives, and more
        aims = np.where(at + offset > 0, at + offset, at)  # the first token is what a query falls back to
        away = -size * _wave(aims, angles) * np.tile(amplitudes, 2)
        term = self.read("place", away, layer), self.read("place", _wave(at, angles), layer)
        return [term, *self.match(layer, self.d_k - 2 * waves - 1, query=query, ripple=size * ripple)]

    # Heads.

    def look_back(self, where: Head, pairs) -> None:
        """A head that looks from the words of each pair's first class to the latest of its second."""
        among = lambda words: np.isin(np.arange(self.vocab), words)  # noqa: E731
        late = RECENT * (np.arange(self.length) - self.length / 2)
        falls = late.max() + SHARP
        found = falls - late.min() + SHARP
        terms = [self.constant(where[0], "word", found * among(keys), among(queries)) for queries, keys in pairs]
        recent = self.constant(where[0], "place", late, among(np.concatenate([queries for queries, _ in pairs])))
        self.plant(where, *terms, recent, self.fall_back(where[0], falls))

    def copy_the_previous(self) -> Head:
        """A head in layer 0 that writes the previous word into `copied`."""
        if not self.last:
            raise ValueError("heads that build on each other need num_layers of at least 2, not 1.")
        self.copied_by = self.free(0)
        self.plant(self.copied_by, self.targets(0, {-1}), out="copied", width=self.d_k - 1, open_to=slice(None))
        return self.copied_by


def _length(codes: np.ndarray) -> float:
    """Of what writing a word's code gives, in the mean."""
    return np.linalg.norm(codes @ codes.T, axis=1).mean()


def _wave(at: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(T, R) cosines and sines, whose products are cosines of differences."""
    return np.concatenate([np.cos(np.outer(at, angles)), np.sin(np.outer(at, angles))], axis=1)


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
