"""Gold labels of a corpus: which earlier tokens a token's prediction (or analysis) goes by, and what a language's own
choices cost. Labels of words become those of tokens, bytes or subwords, and those of documents those of windows."""

import dataclasses
import io

import numpy as np

from train.data.relations.language import Links, Questions


@dataclasses.dataclass(frozen=True, eq=False)
class Gold:
    """Labels of the documents from `first` on; documents are numbered as in the corpus, positions count from a
    document's BOS.

    Attributes:
      relations: names, indexed by the columns `relation`.
      questions: bits of answers that a relation decides (relations languages; else none).
      answer_bits: int8 (V, B) of the vocabulary, empty without questions.
      log_p: float64, of every token from offsets[first] on, log p(token | the tokens before it) by the language itself;
        empty where no language wrote the text.
    """

    relations: tuple[str, ...]
    first: int
    links: Links
    questions: Questions
    answer_bits: np.ndarray
    log_p: np.ndarray

    def as_bytes(self) -> bytes:
        """A file's content: NumPy's npz, not compressed."""
        arrays = {f"links_{name}": column for name, column in self.links._asdict().items()}
        arrays |= {f"questions_{name}": column for name, column in self.questions._asdict().items()}
        arrays |= {"relations": np.array(self.relations, str), "first": np.array(self.first)}
        file = io.BytesIO()
        np.savez(file, answer_bits=self.answer_bits, log_p=self.log_p, **arrays)
        return file.getvalue()


def from_bytes(content: bytes) -> Gold:
    """What `as_bytes` wrote.

    Raises:
      ValueError, KeyError: something else.
    """
    with np.load(io.BytesIO(content)) as arrays:
        links = Links(*(arrays[f"links_{name}"] for name in Links._fields))
        questions = Questions(*(arrays[f"questions_{name}"] for name in Questions._fields))
        names = tuple(arrays["relations"].tolist())
        return Gold(names, int(arrays["first"]), links, questions, arrays["answer_bits"], arrays["log_p"])


def pieces(spans: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of each word, both included.

    Args:
      spans: int (words, 2), first byte and end of each word.
      ends: int (tokens,), the byte at which each token ends.
    """
    first = np.searchsorted(ends, spans[:, 0], side="right")
    return first, np.searchsorted(ends, spans[:, 1] - 1, side="right")


def num_shared(spans: np.ndarray, ends: np.ndarray) -> int:
    """Words of which a token also holds a part of another word, so that the label is not the word's alone; words of one
    span (parts of a contraction) count as one word."""
    own, index = np.unique(spans, axis=0, return_inverse=True)
    first, last = pieces(own, ends)
    touches = np.concatenate([[False], last[:-1] >= first[1:], [False]])
    return int((touches[:-1] | touches[1:])[index.ravel()].sum())


def links_of_tokens(words: list[tuple[int, int, int]], first: np.ndarray, last: np.ndarray, piece: str) -> list[tuple]:
    """(query, key, relation) of tokens for those of words; `all` gives one for every pair of their tokens."""
    if piece != "all":
        first = last = first if piece == "first" else last
    return [
        (one, other, relation)
        for query, key, relation in words
        for one in range(first[query], last[query] + 1)
        for other in range(first[key], last[key] + 1)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class EvalWindows:
    """Windows that count each token of each document once; targets of window w are tokens[w, 1:]."""

    tokens: np.ndarray  # uint16 (windows, seq_len + 1), zero beyond the document's end
    length: np.ndarray  # int32 (windows,): inputs, and targets, that are there
    first: np.ndarray  # int32 (windows,): the targets first <= t < last count; those before are context only
    last: np.ndarray  # int32 (windows,)
    document: np.ndarray  # int32 (windows,): index into Corpus.names
    begin: np.ndarray  # int32 (windows,): place of the window's first token in its document

    def locate(self, document: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The window that counts the target after `position` of `document`, -1 where none does: the last token of a
        document, which has no target, and documents of other splits."""
        span = int(max(position.max(initial=0), (self.begin + self.length).max(initial=0))) + 1
        counted = self.document.astype(np.int64) * span + self.begin + self.first
        window = np.searchsorted(counted, document.astype(np.int64) * span + position, side="right") - 1
        place = position - self.begin[window]
        inside = (self.document[window] == document) & (place >= self.first[window]) & (place < self.last[window])
        return np.where(inside & (window >= 0), window, -1)


def in_windows(links: Links, windows: EvalWindows) -> tuple[np.ndarray, Links]:
    """The links whose query and key stand in one window, that which counts the query's target: the window of each, and
    the links with positions in it. The others, cut by a window's edge or without a target, are left out."""
    window = windows.locate(links.document, links.query)
    begin = windows.begin[window]
    kept = (window >= 0) & (links.key >= begin) & (links.key < begin + windows.length[window])
    begin = begin[kept]
    document, query, key, relation = (column[kept] for column in links)
    return window[kept], Links(document, query - begin, key - begin, relation)
