"""Loss on each relation of a relations language, beside its floor: what the language's own choices cost.

Dimension key: R replica, V vocabulary, J bit.
"""

import dataclasses

import numpy as np
import pandas as pd

from train.config import DataConfig, EvalConfig
from train.data.corpora import Corpus, eval_windows
from train.data.relations import parse, shortcuts
from train.data.windows import EvalWindows
from train.losses.answers import of_windows
from train.losses.documents import BATCHES_PER_DISPATCH
from train.run.packs import Pack
from train.workdir import Workdir

TOKENS, ANSWERS, RELATIONAL = "every token", "answers", "relational bits"
FLOOR, SHORTCUT = "floor", "best shortcut"  # rows of `excess` beside those of cells


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """The answers of a split whose sources stand in the window that counts them, and their questions.

    Attributes:
      window, place: int (answers,), the window and the position in it that the answer is predicted at.
      mask: int (answers,), the relational bits of each, bit j as 2 ** j.
      floor: float64 (answers,), the answer's recorded -log p.
      answer: int (questions,), the answer of each question.
      relation, bit, question_floor: of each question.
      dropped: questions whose source lies before their window, by relation.
    """

    window: np.ndarray
    place: np.ndarray
    mask: np.ndarray
    floor: np.ndarray
    answer: np.ndarray
    relation: np.ndarray
    bit: np.ndarray
    question_floor: np.ndarray
    dropped: np.ndarray


def asked(corpus: Corpus, windows: EvalWindows) -> Asked:
    """The answers that `windows`, all of one split, count.

    An answer of which any question's source is cut off is left out whole.
    """
    gold, span = corpus.gold, int(np.diff(corpus.offsets).max()) + 1
    questions, links = gold.questions, gold.links
    inside = (questions.document >= windows.document[0]) & (questions.document <= windows.document[-1])
    at = questions.document[inside].astype(np.int64) * span + questions.query[inside]
    answers, answer = np.unique(at, return_inverse=True)
    window = windows.locate(*np.divmod(answers, span))
    # The earliest key of each question, against the first token of the window.
    count = len(gold.relations)
    of_links = (links.document.astype(np.int64) * span + links.query) * count + links.relation
    of_questions = at * count + questions.relation[inside]
    earliest = np.full(len(of_questions), span)
    order = np.argsort(of_questions)
    found = np.searchsorted(of_questions, of_links, sorter=order)
    mine = (found < len(order)) & (of_questions[order[np.minimum(found, len(order) - 1)]] == of_links)
    np.minimum.at(earliest, order[found[mine]], links.key[mine])
    cut = earliest < windows.begin[window[answer]]
    whole = np.ones(len(answers), bool)
    whole[answer[cut]] = False
    kept = whole[answer]
    relation, bit = questions.relation[inside], questions.bit[inside]
    numbers = np.cumsum(whole) - 1
    document, query = np.divmod(answers[whole], span)
    mask = np.bincount(answer, 2.0**bit, len(answers)).astype(np.int64)
    return Asked(
        window[whole],
        query - windows.begin[window[whole]],
        mask[whole],
        -gold.log_p[corpus.offsets[document] + query + 1 - corpus.offsets[gold.first]],
        numbers[answer[kept]],
        relation[kept],
        bit[kept],
        -questions.log_p[inside][kept],
        np.bincount(relation[~kept], minlength=count),
    )


def losses(
    pack: Pack, params: dict, corpus: Corpus, split: str, config: EvalConfig, token_losses: np.ndarray
) -> pd.DataFrame:
    """One row a replica and relation: `loss` and `floor` in nats a bit, `excess` their difference, over `questions`.

    A relation's loss is -log of the probability of all answers that have its bit right. Beside the relations stand
    RELATIONAL (all relational bits of an answer right, by their number), ANSWERS (the answer) and TOKENS (every token).

    Args:
      token_losses: summed loss in nats of every document of the split, (R, documents).
    """
    windows = eval_windows(corpus, split, pack.model.seq_len, config.stride or pack.model.seq_len)
    found = asked(corpus, windows)
    nats = _answer_losses(pack, params, corpus, windows, found, config.batch_size)  # (R, answers, J + 2)
    gold, (first, last) = corpus.gold, corpus.splits[split]
    begin, end = corpus.offsets[[first, last]] - corpus.offsets[gold.first]
    bits = np.bincount(found.answer, minlength=len(found.window))
    relational_floor = np.bincount(found.answer, found.question_floor, len(found.window))
    rows = []
    for replica, summed, of_tokens in zip(pack.replicas, nats, token_losses.sum(axis=1), strict=True):
        of_questions = summed[found.answer, found.bit]
        tokens = int(corpus.num_tokens[first:last].sum())
        parts = [
            (TOKENS, tokens, of_tokens, -gold.log_p[begin:end].sum(), 0),
            (ANSWERS, len(summed), summed[:, -1].sum(), found.floor.sum(), 0),
            (RELATIONAL, bits.sum(), summed[:, -2].sum(), relational_floor.sum(), 0),
        ]
        for index, name in enumerate(gold.relations):
            mine = found.relation == index
            floor = found.question_floor[mine].sum()
            parts.append((name, mine.sum(), of_questions[mine].sum(), floor, found.dropped[index]))
        for name, count, loss, floor, dropped in parts:
            rows.append(
                {
                    "learning_rate": replica.learning_rate,
                    "init_seed": replica.init_seed,
                    "data_seed": replica.data_seed,
                    "split": split,
                    "relation": name,
                    "questions": int(count),
                    "dropped": int(dropped),
                    "loss": loss / max(count, 1),
                    "floor": floor / max(count, 1),
                    "excess": (loss - floor) / max(count, 1),
                }
            )
    return pd.DataFrame(rows)


def beside_shortcuts(rows: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """`rows` of `losses` with two more columns, missing where a row is of no single relation.

    `shortcut` is what the best rule leaves that is not the relation itself (the table of --mode=data), in nats a bit
    above the floor; `below_shortcut` is whether the row's `excess` is less, so that some of it is due to the relation.
    A loss that is no number lies below nothing.

    Raises:
      InputError: `config` is no language.
    """
    found = shortcuts.table(parse.language(config), config.language_seed)
    best = rows.relation.map({relation.name: relation.best_excess for relation in found})
    below = (rows.excess < best).astype("boolean").where(best.notna())
    return rows.assign(shortcut=best, below_shortcut=below)


def excess(workdir: Workdir, table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the judged seeds of each cell in `table` at its chosen rate, on `test`: cell (rows) by relation
    (columns), `excess` in nats a bit. Above the cells stand FLOOR, what none can do without, and SHORTCUT, what the
    best rule leaves above it that needs no relation (NaN where a column is of no single relation). Empty where the text
    has no known floor."""
    path = workdir.results / "relations.parquet"
    if not path.exists() or table.empty:
        return pd.DataFrame()
    rows = pd.read_parquet(path)
    rows = rows[rows.split == "test"].merge(table[["cell", "learning_rate"]])
    names = list(dict.fromkeys(rows.relation))
    means = rows.pivot_table(index="cell", columns="relation", values="excess").loc[list(table.cell), names]
    known = rows.groupby("relation")[["floor", "shortcut"]].first().set_axis([FLOOR, SHORTCUT], axis=1).T[names]
    return pd.concat([known, means])


def _answer_losses(
    pack: Pack, params: dict, corpus: Corpus, windows: EvalWindows, found: Asked, batch_size: int
) -> np.ndarray:
    """float64 (R, answers, J + 2) in nats: -log of the probability that bit j is right, for each j; that all bits of
    the mask are; that the answer is."""
    order = np.argsort(found.window, kind="stable")
    of_window = found.window[order]
    slot = np.arange(len(order)) - np.searchsorted(of_window, of_window)
    width = int(slot.max(initial=0)) + 1
    a_dispatch = BATCHES_PER_DISPATCH * batch_size
    rows = -(-len(windows.document) // a_dispatch) * a_dispatch
    places, masks = np.zeros((rows, width), np.int32), np.zeros((rows, width), np.int32)
    places[of_window, slot], masks[of_window, slot] = found.place[order], found.mask[order]
    padding = [(0, rows - len(windows.document))]
    tokens = np.pad(windows.tokens, [*padding, (0, 0)])
    length = np.pad(windows.length, padding)
    bits_VJ = np.full((pack.model.vocab_size, corpus.gold.answer_bits.shape[1]), -1, np.int8)
    bits_VJ[: len(corpus.gold.answer_bits)] = corpus.gold.answer_bits
    shape = (-1, BATCHES_PER_DISPATCH, batch_size)
    chunks = [array.reshape(*shape, *array.shape[1:]) for array in (tokens, length, places, masks)]
    parts = [
        np.asarray(of_windows(pack.model, pack.replica_map, params, bits_VJ, *chunk), np.float64)
        for chunk in zip(*chunks, strict=True)
    ]
    stacked = np.concatenate([part.reshape(len(pack.replicas), -1, *part.shape[3:]) for part in parts], axis=1)
    result = np.empty((len(pack.replicas), len(order), stacked.shape[-1]))
    result[:, order] = stacked[:, of_window, slot]
    return result
