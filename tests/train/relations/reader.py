"""A second scorer and link checker, written apart from train/relations: it reads words, one document at a time.

Each reader is told the dials and nothing of the plan: `p(word)` is the probability of the next word after those that
were read, and `links` are those of the answer that was read last.
"""

import re

OFFSETS = (1, 2, 3, 5, 7, 11)


class Gap:
    """Fillers before a frame."""

    def __init__(self, most: int, words: int = 8):
        self.most, self.words, self.seen = most, words, 0

    def p_filler(self) -> float:
        return (self.most - self.seen) / (self.most - self.seen + 1) / self.words

    def p_end(self) -> float:
        return 1 / (self.most - self.seen + 1)


class DoseReader:
    """Family P: `on` lists the offsets that are switched on, in the order of their names."""

    def __init__(self, on, offsets=OFFSETS, switch=False, tagged=False, distractors=1.0, noise=0.0, frame=12, most=3,
                 fillers=8, synonyms=2):  # fmt: skip
        self.on, self.offsets, self.switch, self.tagged = list(on), offsets, switch, tagged
        self.distractors, self.noise, self.frame, self.most = distractors, noise, frame, most
        self.fillers, self.synonyms = fillers, synonyms
        self.text, self.links, self.log_bits = [], [], []
        self._new_frame()

    def _new_frame(self):
        self.gap, self.body, self.query = Gap(self.most, self.fillers), [], None

    def p(self, word: str) -> float:
        if not self.text:
            return float(word == "<s>")
        if self.query is not None:
            return self._p_answer(word)
        if len(self.body) == self.frame:
            return self._p_query(word)
        if word[0] == "x":
            return 0.0 if self.body or int(word[1:]) >= self.fillers else self.gap.p_filler()
        begin = self.gap.p_end() if not self.body else 1.0
        return begin * self._p_slot(word, self.frame - len(self.body))

    def _p_slot(self, word: str, before_query: int) -> float:
        letters = "abcdefghij"[: len(self.offsets)]
        found = re.fullmatch(r"([a-j])([01])('*)", word)
        is_source = before_query in self.offsets
        if word == "_":
            return 0.0 if is_source else 1 - self.distractors
        if not found or found[1] not in letters or len(found[3]) >= self.synonyms:
            return 0.0
        if is_source and self.tagged:
            own = letters[self.offsets.index(before_query)]
            return (found[1] == own) / (2 * self.synonyms)
        each = 1 / (2 * self.synonyms * len(letters))
        return each if is_source else self.distractors * each

    def _p_query(self, word: str) -> float:
        bits = len(self.offsets)
        if self.switch:
            found = re.fullmatch(rf"\?([A-J]):([01]{{{bits - 1}}})", word)
            fits = found and ord(found[1]) - 65 < bits
            return 1 / (bits * 2 ** (bits - 1)) if fits else 0.0
        return 2.0**-bits if re.fullmatch(rf"\?[01]{{{bits}}}", word) else 0.0

    def truth(self) -> tuple[str, list[tuple[int, int]]]:
        """The answer without noise, and (bit, offset) of what is read for it."""
        source = {offset: self.body[-offset] for offset in self.on}
        if self.switch:
            name, own = self.query[1:].split(":")
            offset = self.on[(ord(name) - 65) % len(self.on)]
            return own + source[offset][1], [(len(own), offset)]
        bits, read = list(self.query[1:]), []
        for offset in self.on:
            bit = self.offsets.index(offset)
            bits[bit] = source[offset][1]
            read.append((bit, offset))
        return "".join(bits), read

    def _p_answer(self, word: str) -> float:
        truth, _ = self.truth()
        if len(word) != len(truth) + 1 or word[0] != "=":
            return 0.0
        p = 1.0
        for said, true in zip(word[1:], truth, strict=True):
            p *= 1 - self.noise if said == true else self.noise
        return p

    def read(self, word: str):
        self.links = []
        if self.query is not None:
            truth, read = self.truth()
            at = len(self.text) - 1
            self.links = [(at, at - offset, f"P{offset}") for _, offset in read]
            self.log_bits = [1 - self.noise if word[1 + bit] == truth[bit] else self.noise for bit, _ in read]
            self.text.append(word)
            return self._new_frame()
        if word[0] == "?":
            self.query = word
        elif word[0] == "x":
            self.gap.seen += 1
        elif self.text:
            self.body.append(word)
        self.text.append(word)


SHARE = {"S": 14, "T": 14, "c": 12, "name": 14, "r": 6, "member": 14, "k": 26}
COUNT = {"S": 2, "T": 2, "c": 2, "name": 4, "r": 16, "member": 16, "k": 4}
ASKED = {"A": 2, "G": 8}  # as often as the other kinds, which are asked for alike


def kind_of(word: str) -> str:
    """The kind of a word of family K, by its spelling."""
    if word[0] in "MF":
        return "name"
    if word[0] in "UVWX":
        return "member"
    return word[0]


class KindsReader:
    """Family K: `on` are the letters that are switched on."""

    def __init__(self, on, noise=0.0, frame=12, most=3):
        self.on, self.noise, self.frame, self.most = on, noise, frame, most
        self.text, self.links, self.log_bits = [], [], []
        self._new_frame()

    def _new_frame(self):
        self.gap, self.words = Gap(self.most), 0

    def last(self, *begins: str) -> int:
        """Where the latest word that begins so stands, -1 for nowhere."""
        return max((at for at, word in enumerate(self.text) if word.startswith(begins)), default=-1)

    def state(self) -> str:
        if not self.text:
            return "begin"
        if re.fullmatch(r"\?G[01]", self.text[-1]):
            return "key"
        if self.text[-1][0] == "?" or len(self.text) > 1 and re.fullmatch(r"\?G[01]", self.text[-2]):
            return "answer"
        return "query" if self.words == self.frame else "text"

    def p(self, word: str) -> float:
        return getattr(self, f"_p_{self.state()}")(word)

    def _p_begin(self, word: str) -> float:
        return float(word == "<s>")

    def _p_text(self, word: str) -> float:
        if word[0] == "x":
            return 0.0 if self.words else self.gap.p_filler()
        if word[0] in "?=<":
            return 0.0
        kind, before_query = kind_of(word), self.frame - self.words
        p = 1.0 if self.words else self.gap.p_end()
        if before_query == 8:
            p *= kind == "c"
        elif before_query <= 5 or self.text[-1][0] == "k":
            p *= 0 if kind == "k" else SHARE[kind] / (100 - SHARE["k"])
        else:
            p *= SHARE[kind] / 100
        p /= COUNT[kind]
        if kind == "member":
            before = {said[1] for said in self.text if said[0] == word[0]}
            return p * (1 / 2 if not before else float(word[1] in before))
        return p if kind == "k" else p / 2

    def askable(self) -> list[str]:
        """Queries, without their own bit, that the text can answer."""
        found = []
        subject, attractor = self.last("S"), self.last("T")
        if 0 <= subject < attractor:
            found.append("?A")
        found.append("?B")
        male, female = self.last("M"), self.last("F")
        if min(male, female) >= 0:
            found.append("?C:0" if male < female else "?C:1")
        if self.last("r") >= 0:
            found.append("?D")
        found.append("?E")
        classes = [f"?F:{'UVWX'.index(letter)}" for letter in "UVWX" if self.last(letter) >= 0]
        if classes:
            found.append(classes)
        if self.keys():
            found.append("?G")
        return found

    def keys(self) -> list[str]:
        latest = self.text[self.last("k")]
        return sorted({word for word in self.text if word[0] == "k"} - {latest})

    def _p_query(self, word: str) -> float:
        found = re.fullmatch(r"(\?[A-G])[01](:\d)?", word)
        if not found:
            return 0.0
        name, p, every = found[1] + (found[2] or ""), 0.0, 0
        for choice in self.askable():
            choices = choice if isinstance(choice, list) else [choice]
            times = ASKED.get(choices[0][1], 1)
            p += times * (name in choices) / len(choices)
            every += times
        return p / every / 2

    def _p_key(self, word: str) -> float:
        keys = self.keys()
        return (word in keys) / len(keys)

    def question(self) -> str:
        return self.text[-2] if self.text[-1][0] == "k" else self.text[-1]

    def truth(self) -> tuple[str, list[int]]:
        """The answer's bit without noise, and where it is read."""
        query = self.question()
        kind = query[1]
        if kind not in self.on:
            return query[2], []
        at = len(self.text) - 1
        if kind == "E":
            span = range(at - 5, at)
            return str(int(sum(int(self.bit(place)) for place in span) > 2)), list(span)
        if kind == "F":
            members = [place for place in range(at) if self.text[place][0] == "UVWX"[int(query[-1])]]
            return self.bit(members[0]), members
        if kind == "G":
            place = max(place for place in range(at) if self.text[place] == self.text[at]) + 1
        else:
            place = {
                "A": lambda: self.last("S"),
                "B": lambda: at - 8,
                "C": lambda: self.last("MF"[int(query[-1])]),
                "D": lambda: self.last("r"),
            }[kind]()
        return self.bit(place), [place]

    def bit(self, place: int) -> str:
        return self.text[place][1]

    def _p_answer(self, word: str) -> float:
        if word[0] != "=":
            return 0.0
        return 1 - self.noise if word[1:] == self.truth()[0] else self.noise

    def read(self, word: str):
        self.links, state = [], self.state()
        if state == "answer":
            truth, places = self.truth()
            at, kind = len(self.text) - 1, self.question()[1]
            self.links = [(at, place, kind) for place in places]
            self.log_bits = [1 - self.noise if word[1] == truth else self.noise] if places else []
            self._new_frame()
        elif state == "text":
            if word[0] == "x":
                self.gap.seen += 1
            else:
                self.words += 1
        self.text.append(word)


class MixedReader:
    """Either family; the first word after BOS says which one."""

    def __init__(self, dose: DoseReader, kinds: KindsReader):
        self.dose, self.kinds, self.text = dose, kinds, []

    @property
    def family(self):
        return self.kinds if self.text[1].startswith("K") else self.dose

    @property
    def links(self):
        return self.family.links if len(self.text) > 1 else []

    @property
    def log_bits(self):
        return self.family.log_bits

    def p(self, word: str) -> float:
        if not self.text:
            return float(word == "<s>")
        of_kinds = word.startswith("K")
        reader = self.kinds if of_kinds else self.dose
        if len(self.text) == 1:
            return reader.p(word.removeprefix("K")) / 2
        return reader.p(word.removeprefix("K")) if reader is self.family else 0.0

    def read(self, word: str):
        self.text.append(word)
        if word == "<s>":
            self.dose.read(word)
            self.kinds.read(word)
        else:
            self.family.read(word.removeprefix("K"))
