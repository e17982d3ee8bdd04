"""Family P, the dose: r = 1 ... B relations at constant load; each tells one bit of an answer of B bits.

    <s> x2 x0 a0 c1 ... b1 ?101101 =001101 x5 e0 ...

A document is BOS and then frames: 0 to `most_fillers` fillers (each number as likely), `frame_tokens` content tokens, a
query and its answer, until the document is full. A content token is of one of B alphabets, carries a bit and has a
synonym. Relation j reads the bit of the token `offsets[j]` before the query.

joint: the query carries B bits of its own; bit j of the answer is the source's where relation j is switched on, the
query's own where it is not. switch: the query carries a name and B - 1 bits of its own; the answer has these bits, and
as its last the source's of the relation that goes by that name. The load, the words and the number of answers are the
same for every r.
"""

import dataclasses
import functools
import itertools

import numpy as np

from train.data.relations.language import BOS, Documents, Links, Questions, Vocabulary

FILLERS = 8
SYNONYMS = 2


def active(row: int, count: int, r: int) -> tuple[int, ...]:
    """The r relations of `count` that row `row` of a Latin square switches on: over `count` successive rows every
    relation is on equally often, for each r.

    The order zigzags (0, 1, count - 1, 2, ...), so that those switched on together are not neighbours only.
    """
    zigzag = [(index + 1) // 2 if index % 2 else (count - index // 2) % count for index in range(count)]
    return tuple((row + step) % count for step in zigzag[:r])


@dataclasses.dataclass(frozen=True)
class Dose:
    """Family P. No check is made here; train.data.relations.parse makes them.

    Attributes:
      on: the relations that are switched on, each an index into `offsets`, in the order of their names under switch.
      offsets: of each relation's source, tokens before the query.
      demand: `joint` or `switch`.
      tagged: each source slot draws from an alphabet of its own, so that a token says which bit it is; else every slot
        draws from all alphabets.
      distractors: probability that a slot at no offset holds a content token and not a blank.
      noise: probability that a bit of the answer is flipped, each on its own.
    """

    on: tuple[int, ...]
    offsets: tuple[int, ...] = (1, 2, 3, 5, 7, 11)
    demand: str = "joint"
    tagged: bool = False
    distractors: float = 1.0
    noise: float = 0.0
    frame_tokens: int = 12
    most_fillers: int = 3
    length: int = 64
    fillers: int = FILLERS
    synonyms: int = SYNONYMS

    num_bits = property(lambda self: len(self.offsets))
    relations = property(lambda self: tuple(f"P{self.offsets[relation]}" for relation in self.on))
    sources = property(lambda self: dict.fromkeys(self.relations, ("content",)))

    @property
    def num_own(self) -> int:
        """Values of the bits that a query has of its own."""
        return 2 ** (self.num_bits if self.demand == "joint" else self.num_bits - 1)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        names = 1 if self.demand == "joint" else self.num_bits
        named = [f"{chr(65 + name)}:" for name in range(names)] if names > 1 else [""]
        own = _written(self.num_own.bit_length() - 1)
        content = itertools.product(range(self.num_bits), (0, 1), range(self.synonyms))
        by_kind = {"bos": ["<s>"], "blank": ["_"], "filler": [f"x{index}" for index in range(self.fillers)]}
        by_kind["content"] = [f"{chr(97 + alphabet)}{bit}" + "'" * synonym for alphabet, bit, synonym in content]
        by_kind["query"] = [f"?{name}{bits}" for name in named for bits in own]
        by_kind["answer"] = [f"={bits}" for bits in _written(self.num_bits)]
        bits = {"content": np.arange(len(by_kind["content"])) // self.synonyms % 2}
        return Vocabulary.of(by_kind, bits, _bits_of(np.arange(2**self.num_bits), self.num_bits))

    def sample(self, draw: np.random.Generator, count: int) -> Documents:
        first, shape, num_bits = self.vocabulary.first, (count, self.length), self.num_bits
        gaps, place = self._frames(draw, count)
        filler, content = place < 0, (place >= 0) & (place < self.frame_tokens)
        query, answer = place == self.frame_tokens, place == self.frame_tokens + 1

        # The same numbers are drawn for every r, so the same seed gives the same text but for the answers.
        asks = self.num_own * (num_bits if self.demand == "switch" else 1)
        alphabets, bits, synonyms, which_filler, asked = (
            draw.integers(0, number, shape, np.int16) for number in (num_bits, 2, self.synonyms, self.fillers, asks)
        )

        log_p = np.zeros(shape)
        so_far = gaps + place  # fillers of the frame before this token, where it is a filler or the first content
        stops = 1 / (self.most_fillers + 1 - so_far[content & (place == 0)])
        log_p[filler] = np.log1p(-1 / (self.most_fillers + 1 - so_far[filler])) - np.log(self.fillers)
        log_p[content & (place == 0)] = np.log(stops)

        slots = np.full(self.frame_tokens, -1)  # the relation whose source stands there
        slots[self.frame_tokens - np.array(self.offsets)] = np.arange(num_bits)
        slot = slots[np.where(content, place, 0)]
        source = content & (slot >= 0)
        log_p[content] -= np.log(2 * self.synonyms * num_bits)
        if self.tagged:
            alphabets = np.where(source, slot, alphabets)
            log_p[source] += np.log(num_bits)
        blank = np.zeros(shape, bool)
        if self.distractors < 1:
            other = content & ~source
            blank = other & (draw.random(shape) >= self.distractors)
            # A blank is one word: none of the factors of a content word but that of the frame's begin.
            log_p[other & ~blank] += np.log(self.distractors) if self.distractors else 0.0
            log_p[blank] += np.log1p(-self.distractors) + np.log(2 * self.synonyms * num_bits)
        log_p[query] = -np.log(asks)

        tokens = np.full(shape, BOS, np.int64)
        tokens[filler] = first["filler"] + which_filler[filler]
        tokens[content] = first["content"] + ((alphabets * 2 + bits) * self.synonyms + synonyms)[content]
        tokens[blank] = first["blank"]
        tokens[query] = first["query"] + asked[query]

        document, position = np.nonzero(query[:, :-1])  # a query in the last place has no answer
        truth, relation, bit = self._answers(bits, asked[document, position], document, position)
        flipped = draw.random(truth.shape) < self.noise
        log_bits = np.where(flipped, np.log(self.noise or 1), np.log1p(-self.noise))
        tokens[answer] = first["answer"] + (truth ^ flipped) @ (2 ** np.arange(num_bits))[::-1]
        log_p[answer] = log_bits.sum(axis=1)
        tokens[:, 0], log_p[:, 0] = BOS, 0

        rows = np.repeat(np.arange(len(document)), relation.shape[1])
        columns = document[rows], position[rows], relation.ravel(), bit.ravel()
        document, position, relation, bit = (column.astype(np.int32) for column in columns)
        links = Links(document, position, position - np.int32(self.offsets)[np.array(self.on)[relation]], relation)
        questions = Questions(document, position, relation, bit, log_bits[rows, bit])
        return Documents(tokens.astype(np.uint16), log_p, links, questions)

    def _frames(self, draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(N, T) each: the fillers of each token's frame, and its place: below 0 a filler, then the content tokens from
        0, the query at `frame_tokens`, the answer behind it."""
        after = self.frame_tokens + 2
        fillers = draw.integers(0, self.most_fillers + 1, (count, -(-(self.length - 1) // after)), np.int16)
        begins = 1 + np.cumsum(np.pad(fillers[:, :-1] + after, ((0, 0), (1, 0))), axis=1)
        column = np.arange(self.length)
        frame = sum((column >= begin[:, None]) for begin in begins.T[1:]) + np.zeros((count, self.length), np.int64)
        gaps = np.take_along_axis(fillers, frame, 1)
        place = column - np.take_along_axis(begins, frame, 1) - gaps
        place[:, 0] = self.frame_tokens + 2  # BOS, which is nothing of a frame
        return gaps, place

    def _answers(self, bits, asked, document, position) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each of M answers: its bits without noise (M, B), and (M, questions) each the relations asked, as indices
        into `on`, and the bits of the answer that they decide."""
        sources = bits[document[:, None], position[:, None] - np.array(self.offsets)]
        if self.demand == "joint":
            truth = _bits_of(asked, self.num_bits)
            truth[:, self.on] = sources[:, self.on]
            relation = np.broadcast_to(np.arange(len(self.on)), (len(asked), len(self.on)))
            return truth, relation, np.array(self.on)[relation]
        name, own = np.divmod(asked, self.num_own)
        relation = (name % len(self.on)).astype(np.int64)
        source = sources[np.arange(len(asked)), np.array(self.on)[relation]]
        truth = np.concatenate([_bits_of(own, self.num_bits - 1), source[:, None]], axis=1)
        return truth, relation[:, None], np.full((len(asked), 1), self.num_bits - 1)


def _bits_of(numbers: np.ndarray, count: int) -> np.ndarray:
    """int64 (..., count): the highest bit first."""
    return numbers[..., None].astype(np.int64) >> np.arange(count)[::-1] & 1


def _written(count: int) -> list[str]:
    """Every number of `count` bits."""
    return ["".join(bits) for bits in itertools.product("01", repeat=count)]
