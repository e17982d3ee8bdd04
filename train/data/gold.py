"""Gold labels of a corpus: which earlier tokens a token's prediction (or analysis) goes by, and what a language's own
choices cost."""

import dataclasses
import io

import numpy as np

from train.data.relations.language import Links, Questions
from train.data.windows import EvalWindows


@dataclasses.dataclass(frozen=True, eq=False)
class Gold:
    """Labels of the documents from `first` on; documents are numbered as in the corpus, positions count from a
    document's BOS.

    Attributes:
      relations: names, indexed by the columns `relation`.
      questions: bits of answers that a relation decides (relations languages; else none).
      answer_bits: int8 (V, B) of the vocabulary, (0, 0) without questions.
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


def in_windows(links: Links, windows: EvalWindows) -> tuple[np.ndarray, Links]:
    """The links whose query and key stand in one window, that which counts the query's target: the window of each, and
    the links with positions in it. The others, cut by a window's edge or without a target, are left out."""
    window = windows.locate(links.document, links.query)
    begin = windows.begin[window]
    kept = (window >= 0) & (links.key >= begin) & (links.key < begin + windows.length[window])
    begin = begin[kept]
    document, query, key, relation = (column[kept] for column in links)
    return window[kept], Links(document, query - begin, key - begin, relation)
