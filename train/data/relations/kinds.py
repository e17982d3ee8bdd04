"""Family K, the kinds of relation that attention heads are said to serve; each asks for one bit.

    <s> x1 S1 F0a1 c0 T0 ... c1 ... ?A0 =1 ... ?G1 k3 =0 ...

A document is BOS and then frames: 0 to `most_fillers` fillers, `frame_tokens` words, a query and its answer. Every word
but a key carries a bit. A query names its kind (and a gender or a class where the kind needs one) and has a bit of its
own; the answer is the bit that the relation finds where the kind is switched on, the query's own where it is not. So
the text, the load and the number of answers are the same whatever is on.

  A agreement    the bit of the latest subject opener S; an attractor opener T stands after it
  B position     the bit of the word, a carrier, 8 before the query
  C coreference  the bit of the latest name of gender g; a name of the other gender stands after it
  D rare         the bit of the latest rare word
  E local        the majority of the 5 words before the query
  F semantic     the bit of class g, drawn at its first word in a document and the same in all others
  G induction    the bit of what followed the latest earlier copy of the key; another key stands after that copy

A kind is asked for among those that the text so far can answer, as likely as its share of ASKED: agreement and
induction can be asked for least often, and induction, which takes two layers, needs the most examples to be learnt.
"""

import dataclasses
import functools

import numpy as np

from train.data.relations.language import BOS, Documents, Links, Questions, Vocabulary

KINDS = tuple("ABCDEFG")
NAMES = dict(
    zip(KINDS, ("agreement", "position", "coreference", "rare", "local", "semantic", "induction"), strict=True)
)
DISTANCE = 8  # of B's carrier; at that distance a frame always has one
SPAN = 5  # words of E
GENDERS, CLASSES, KEYS, FILLERS = 2, 4, 4, 8
# word -> how often it is drawn (shares of what may stand in a place), and how many there are beside their bit.
SHARES = {"subject": 0.14, "attractor": 0.14, "carrier": 0.12, "name": 0.14, "rare": 0.06, "member": 0.14, "key": 0.26}
ASKED = {"A": 2, "B": 1, "C": 1, "D": 1, "E": 1, "F": 1, "G": 8}
SIZES = {"subject": 2, "attractor": 2, "carrier": 2, "name": 2 * GENDERS, "rare": 16}
SIZES |= {"member": 4 * CLASSES, "key": KEYS}
WORDS = tuple(SHARES)
CARRY = tuple(word for word in WORDS if word != "key")  # a bit
LETTERS = {"subject": "S", "attractor": "T", "carrier": "c", "rare": "r"}
SOURCES = {"A": ("subject", "attractor"), "B": ("carrier",), "C": ("name",), "D": ("rare",), "E": CARRY}
SOURCES |= {"F": ("member",), "G": (*CARRY, "answer")}
ARGUMENTS = {"A": 1, "B": 1, "C": GENDERS, "D": 1, "E": 1, "F": CLASSES, "G": 1}
QUERIES = dict(zip(KINDS, np.cumsum([0, *(2 * n for n in ARGUMENTS.values())]).tolist(), strict=False))
BODY, QUERY, KEY, ANSWER = range(4)  # what comes next


@dataclasses.dataclass(frozen=True)
class Kinds:
    """Family K. No check is made here; train.data.relations.parse makes them.

    Attributes:
      on: the kinds that are switched on, letters in the order of KINDS.
      noise: probability that an answer's bit is flipped.
    """

    on: tuple[str, ...]
    noise: float = 0.0
    frame_tokens: int = 12
    most_fillers: int = 3
    length: int = 64

    relations = property(lambda self: self.on)
    sources = property(lambda self: {kind: SOURCES[kind] for kind in self.on})

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        by_kind = {"bos": ["<s>"], "filler": [f"x{index}" for index in range(FILLERS)]}
        for word, size in SIZES.items():
            carried = (0, 1) if word in CARRY else ("",)
            by_kind[word] = [_spelt(word, index, bit) for index in range(size) for bit in carried]
        by_kind["query"] = [
            f"?{kind}{own}" + (f":{argument}" if number > 1 else "")
            for kind, number in ARGUMENTS.items()
            for argument in range(number)
            for own in (0, 1)
        ]
        by_kind["answer"] = ["=0", "=1"]
        bits = {word: np.arange(2 * SIZES[word]) % 2 for word in CARRY}
        return Vocabulary.of(by_kind, bits | {"answer": np.arange(2)}, np.arange(2)[:, None])

    def sample(self, draw: np.random.Generator, count: int) -> Documents:
        text = _Text(self, draw, count)
        for position in range(1, self.length):
            text.write(position)
        return text.documents()


def _spelt(word: str, index: int, bit) -> str:
    if word == "member":
        return f"{'UVWX'[index // 4]}{bit}{'abcd'[index % 4]}"
    if word == "key":
        return f"k{index}"
    letter, index = ("MF"[index // 2], index % 2) if word == "name" else (LETTERS[word], index)
    return f"{letter}{bit}" + ("'" * index if index < 2 else chr(97 + index))


class _Text:
    """N documents while they are written, a token of each at a time; every array has one row a document."""

    def __init__(self, language: Kinds, draw: np.random.Generator, count: int):
        self._language, self._draw = language, draw
        self._first, self._tokens = language.vocabulary.first, np.full((count, language.length), BOS, np.int64)
        self._log_p, self._next = np.zeros((count, language.length)), np.full(count, BODY)
        self._fillers, self._words = np.zeros(count, int), np.zeros(count, int)  # of the frame so far
        # Positions of the latest ones, -1 while there is none.
        self._subject, self._attractor, self._rare, self._key = (np.full(count, -1) for _ in range(4))
        self._names, self._keys = np.full((count, GENDERS), -1), np.full((count, KEYS), -1)
        self._class_bits = np.full((count, CLASSES), -1)
        self._kind, self._own, self._argument = (np.zeros(count, int) for _ in range(3))
        self._key_before = np.full(count, -1)  # of the key that is asked for, the copy before the query
        self._links, self._questions = [np.zeros((4, 0), int)], [(*np.zeros((4, 0), int), np.zeros(0))]

    def write(self, position: int) -> None:
        """Draws the token at `position` of every document."""
        steps = {BODY: self._write_body, QUERY: self._write_query, KEY: self._write_key, ANSWER: self._write_answer}
        rows = {step: np.flatnonzero(self._next == step) for step in steps}
        for step, write in steps.items():
            if len(rows[step]):
                write(rows[step], position)

    def _put(self, rows, position: int, tokens, log_p) -> None:
        self._tokens[rows, position], self._log_p[rows, position] = tokens, log_p

    def _write_body(self, rows, position: int) -> None:
        stops = np.where(self._words[rows] == 0, 1 / (self._language.most_fillers + 1 - self._fillers[rows]), 1.0)
        draws = self._draw.random(len(rows)) < stops
        fills, log_stop = rows[~draws], np.log(stops[draws])
        self._fillers[fills] += 1
        token = self._first["filler"] + self._draw.integers(0, FILLERS, len(fills))
        self._put(fills, position, token, np.log1p(-stops[~draws]) - np.log(FILLERS))
        self._write_word(rows[draws], position, log_stop)

    def _write_word(self, rows, position: int, log_p) -> None:
        language = self._language
        before_query, after_key = language.frame_tokens - self._words[rows], self._key[rows] == position - 1
        choices = _shares()[np.where(before_query == DISTANCE, 2, ((before_query <= SPAN) | after_key) * 1)]
        word = (self._draw.random((len(rows), 1)) >= np.cumsum(choices, axis=1)[:, :-1]).sum(axis=1)
        log_p = log_p + np.log(np.take_along_axis(choices, word[:, None], 1)[:, 0])
        sizes = np.array(list(SIZES.values()))[word]
        index, bit = (self._draw.random(len(rows)) * sizes).astype(int), self._draw.integers(0, 2, len(rows))
        log_p -= np.log(sizes)
        key, member, name = (word == WORDS.index(kind) for kind in ("key", "member", "name"))

        which = rows[member], index[member] // 4
        known = self._class_bits[which]
        bit[member] = np.where(known < 0, bit[member], known)
        self._class_bits[which] = bit[member]
        free = ~key
        free[member] = known < 0
        log_p -= np.log(2) * free

        begin = np.array([self._first[kind] for kind in WORDS])[word]
        self._put(rows, position, begin + np.where(key, index, 2 * index + bit), log_p)
        for kind, latest in (("subject", self._subject), ("attractor", self._attractor), ("rare", self._rare)):
            latest[rows[word == WORDS.index(kind)]] = position
        self._names[rows[name], index[name] // 2] = position
        self._keys[rows[key], index[key]] = self._key[rows[key]] = position
        self._words[rows] += 1
        self._next[rows[before_query == 1]] = QUERY

    def _write_query(self, rows, position: int) -> None:
        seen = self._class_bits[rows] >= 0
        # The latest name is of one gender, so the other one is asked for; the keys but the latest.
        asked_names, asked_keys = self._names[rows].min(axis=1), self._askable_keys(rows)
        agreement = (self._subject[rows] >= 0) & (self._attractor[rows] > self._subject[rows])
        always, rare = np.ones(len(rows), bool), self._rare[rows] >= 0
        able = (agreement, always, asked_names >= 0, rare, always, seen.any(axis=1), asked_keys.any(axis=1))
        may = np.stack(able, axis=1) * list(ASKED.values())
        kind, own = self._pick(may), self._draw.integers(0, 2, len(rows))
        gender, group = self._names[rows].argmin(axis=1), self._pick(seen)
        argument = np.select([kind == 2, kind == 5], [gender, group], 0)
        token = self._first["query"] + np.array(list(QUERIES.values()))[kind] + 2 * argument + own
        chosen = np.take_along_axis(may, kind[:, None], 1)[:, 0]
        log_p = np.log(chosen / may.sum(axis=1) / 2) - np.where(kind == 5, np.log(np.maximum(seen.sum(axis=1), 1)), 0)
        self._put(rows, position, token, log_p)
        self._kind[rows], self._own[rows], self._argument[rows] = kind, own, argument
        self._next[rows] = np.where(kind == 6, KEY, ANSWER)

    def _askable_keys(self, rows) -> np.ndarray:
        return (self._keys[rows] >= 0) & (self._keys[rows] != self._key[rows, None])

    def _pick(self, may: np.ndarray) -> np.ndarray:
        """A column of each row, as likely as its share of `may`, whole numbers; 0 of a row without any."""
        order = (self._draw.random(len(may)) * may.sum(axis=1)).astype(int)
        return np.argmax(np.cumsum(may, axis=1) > order[:, None], axis=1)

    def _write_key(self, rows, position: int) -> None:
        may = self._askable_keys(rows)
        key = self._pick(may)
        self._put(rows, position, self._first["key"] + key, -np.log(may.sum(axis=1)))
        self._key_before[rows] = self._keys[rows, key]
        self._keys[rows, key] = self._key[rows] = position
        self._next[rows] = ANSWER

    def _write_answer(self, rows, position: int) -> None:
        language, query = self._language, position - 1
        bits, kind = language.vocabulary.bits, self._kind[rows]
        truth, noisy = self._own[rows].copy(), self._draw.random(len(rows)) < language.noise
        log_p = np.where(noisy, np.log(language.noise or 1), np.log1p(-language.noise))
        for relation, letter in enumerate(language.on):
            these = kind == KINDS.index(letter)
            documents = rows[these]
            owner, key = self._looked_at(letter, documents, query)
            ones = np.bincount(owner, bits[self._tokens[documents[owner], key]], len(documents))
            truth[these] = 2 * ones > np.bincount(owner, minlength=len(documents))
            self._links.append(np.broadcast_arrays(documents[owner], query, key, relation))
            self._questions.append(np.broadcast_arrays(documents, query, relation, 0, log_p[these]))
        self._put(rows, position, self._first["answer"] + (truth ^ noisy), log_p)
        self._fillers[rows] = self._words[rows] = 0
        self._next[rows] = BODY

    def _looked_at(self, letter: str, rows, query: int) -> tuple[np.ndarray, np.ndarray]:
        """What the relation looks at in the documents `rows`: (which of the rows, position), one entry a link."""
        each = np.arange(len(rows))
        if letter == "E":
            return np.repeat(each, SPAN), np.tile(query - 1 - np.arange(SPAN), len(rows))
        if letter == "F":
            begin, text = self._first["member"] + 8 * self._argument[rows, None], self._tokens[rows, :query]
            return np.nonzero((text >= begin) & (text < begin + 8))
        at = {
            "A": self._subject[rows],
            "B": np.full(len(rows), query - DISTANCE),
            "C": self._names[rows, self._argument[rows]],
            "D": self._rare[rows],
            "G": self._key_before[rows] + 1,
        }
        return each, at[letter]

    def documents(self) -> Documents:
        def table(kind: type, rows: list):
            columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
            # By document and then by query; the sort is stable, so each question keeps the order of its links.
            order = np.lexsort((columns[1], columns[0]))
            return kind(*(column[order].astype(np.int32) for column in columns[:4]), *(c[order] for c in columns[4:]))

        links, questions = table(Links, self._links), table(Questions, self._questions)
        return Documents(self._tokens.astype(np.uint16), self._log_p, links, questions)


@functools.cache
def _shares() -> np.ndarray:
    """(3, words): shares where anything may stand, where no key may, and where a carrier must."""
    shares = np.array(list(SHARES.values()))
    no_key = np.where(np.arange(len(WORDS)) == WORDS.index("key"), 0, shares)
    carrier = (np.arange(len(WORDS)) == WORDS.index("carrier")).astype(float)
    return np.stack([shares / shares.sum(), no_key / no_key.sum(), carrier])
