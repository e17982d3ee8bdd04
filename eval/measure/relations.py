"""Loss on each relation of a relations language, beside its floor: what the language's own choices cost.

Dimension key: R replica, V vocabulary, J bit.
"""

import dataclasses
import functools
import math

import numpy as np
import pandas as pd

from eval.restore import Restored
from mha.transformer import ModelConfig
from train import grid
from train.config import EvalConfig, StudyConfig
from train.data.corpora import Corpus, eval_windows
from train.data.relations import doses, parse, shortcuts
from train.data.relations.language import Language
from train.data.windows import EvalWindows
from train.losses import answers
from train.losses.documents import BATCHES_PER_DISPATCH
from train.run.packs import Pack

IN_STUDY = True
NEEDS = ("losses",)
TOKENS, ANSWERS, RELATIONAL = "every token", "answers", "relational bits"
COLUMNS = ["replica", "relation", "questions", "dropped", "loss", "floor", "excess", "shortcut", "query_alone"]


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
    gold, at = corpus.gold, ["document", "query"]
    questions = pd.DataFrame(gold.questions._asdict())
    questions = questions[questions.document.between(windows.document[0], windows.document[-1])]
    earliest = pd.DataFrame(gold.links._asdict()).groupby([*at, "relation"]).key.min().rename("earliest")
    questions = questions.join(earliest, on=[*at, "relation"])
    questions["window"] = windows.locate(questions.document.to_numpy(np.int64), questions["query"].to_numpy(np.int64))
    # An answer goes whole if the earliest key of any of its questions lies before the window.
    cut = questions.earliest < windows.begin[questions.window]
    kept = ~cut.groupby([questions.document, questions["query"]]).transform("any")
    whole = questions[kept]
    groups = whole.assign(mask=2 ** whole.bit.astype(np.int64)).groupby(at)
    answers = groups.agg(window=("window", "first"), mask=("mask", "sum")).reset_index()
    document, query, window = (answers[name].to_numpy(np.int64) for name in (*at, "window"))
    return Asked(
        window,
        query - windows.begin[window],
        answers["mask"].to_numpy(),
        -gold.log_p[corpus.offsets[document] + query + 1 - corpus.offsets[gold.first]],
        groups.ngroup().to_numpy(),
        whole.relation.to_numpy(),
        whole.bit.to_numpy(),
        -whole.log_p.to_numpy(),
        np.bincount(questions.relation[~kept], minlength=len(gold.relations)),
    )


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.data.source != "relations":
        return "relations are measured in a relations language, data.source=relations, whose floor is known."
    return "" if model.causal else "a relation's floor is that of who sees the past alone, and this model is masked."


def settings(config: StudyConfig) -> dict:
    return {"stride": config.eval.stride, "batch_size": config.eval.batch_size}


def measure_cell(packs: list[Restored], split: str, chosen: dict, needed: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a replica and relation: `loss` and `floor` in nats a bit, `excess` their difference, over `questions`.

    A relation's loss is -log of the probability of all answers that have its bit right. Beside the relations stand
    RELATIONAL (all relational bits of an answer right, by their number) and, of a corpus, ANSWERS (the answer) and
    TOKENS (every token).

    `shortcut` is what the best rule leaves that is not the relation itself (the table of --mode=data), in nats a bit
    above the floor, `query_alone` the best of those that see the query alone, and `below_shortcut` whether the row's
    `excess` is less than `shortcut`, so that some of it is due to the relation; they are missing where a row is of no
    single relation of a corpus. A loss that is no number lies below nothing.

    Args:
      needed: `losses`, by document, of a corpus.
    """
    of_pack = _of_seeds if packs[0].corpus is None else _of_corpus
    rows = [of_pack(pack, split, EvalConfig(**chosen), needed) for pack in packs]
    return beside_shortcuts(pd.concat(rows, ignore_index=True))


def beside_shortcuts(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the column `below_shortcut`."""
    below = (rows.excess < rows.shortcut).astype("boolean").where(rows.shortcut.notna())
    return rows.assign(below_shortcut=below)


def _of_seeds(restored: Restored, split: str, _: EvalConfig, needed: dict) -> pd.DataFrame:
    """Of replicas that each speak their own seed's language, on the documents that looks are taken on."""
    config, pack, rows = restored.study, restored.pack, []
    seeds = [replica.data_seed for replica in pack.replicas]
    found = answers.of_seeds(pack.model, restored.params, config, pack.dose, split, seeds)
    if split == ("tune" if grid.chooses(pack.replicas[0], config) else "test"):  # that of the looks
        diverged = np.asarray(restored.diverged_at) >= 0  # which counts as chance
        last = np.where(diverged, math.log(2), [each["loss"] for each in found])
        restored.check(last, "relational losses", lambda trained: [one["loss"] for one in trained["outcomes"]])
    for replica, each in zip(pack.replicas, found, strict=True):
        spoken = doses.spoken(config.data, pack.dose, replica.data_seed)
        questions = doses.looked_at(config, pack.dose, split, replica.data_seed).questions
        by_name = {rule.name: rule for rule in _rules(spoken, 0)}
        rules = [by_name[name] for name in spoken.relations]
        shares = np.array([rule.share for rule in rules])
        best, alone = (np.array([of(rule) for rule in rules]) for of in (_best, _query_alone))
        floors = [-questions.log_p[questions.relation == place] for place in range(len(rules))]
        parts = zip(*zip(*each["relations"].items(), strict=True), floors, best, alone, strict=True)
        whole = (RELATIONAL, each["loss"], -questions.log_p, shares @ best, shares @ alone)
        for name, excess, floor, *rule in [*parts, whole]:
            mean = floor.mean() if len(floor) else 0.0
            rows.append((replica.name, name, len(floor), 0, excess + mean, mean, excess, *rule))
    return pd.DataFrame(rows, columns=COLUMNS)


@functools.cache
def _rules(spoken: Language, seed: int) -> tuple[shortcuts.Relation, ...]:
    """The shortcut table of a language, which many runs have in common."""
    return tuple(shortcuts.table(spoken, seed))


def _best(relation: shortcuts.Relation) -> float:
    return relation.best_excess


def _query_alone(relation: shortcuts.Relation) -> float:
    """Nats a bit above the floor that the best rule leaves which sees the query alone."""
    (loss,) = (rule.loss for rule in relation.shortcuts if rule.rule == "query alone")
    return loss - relation.floor


def _of_corpus(restored: Restored, split: str, config: EvalConfig, needed: dict) -> pd.DataFrame:
    pack, corpus, data = restored.pack, restored.corpus, restored.study.data
    windows = eval_windows(corpus, split, pack.model.seq_len, config.stride or pack.model.seq_len)
    answered = asked(corpus, windows)
    nats = _answer_losses(pack, restored.params, corpus, windows, answered, config.batch_size)  # (R, answers, J + 2)
    gold, (first, last) = corpus.gold, corpus.splits[split]
    begin, end = corpus.offsets[[first, last]] - corpus.offsets[gold.first]
    bits = np.bincount(answered.answer, minlength=len(answered.window))
    relational_floor = np.bincount(answered.answer, answered.question_floor, len(answered.window))
    tokens, of_tokens = int(corpus.num_tokens[first:last].sum()), needed["losses"].groupby("replica").loss_sum.sum()
    rules = {relation.name: relation for relation in _rules(parse.language(data), data.language_seed)}
    rows, none = [], (math.nan, math.nan)
    for replica, summed in zip(pack.replicas, nats, strict=True):
        of_questions = summed[answered.answer, answered.bit]
        parts = [
            (TOKENS, tokens, 0, of_tokens[replica.name], -gold.log_p[begin:end].sum(), *none),
            (ANSWERS, len(summed), 0, summed[:, -1].sum(), answered.floor.sum(), *none),
            (RELATIONAL, int(bits.sum()), 0, summed[:, -2].sum(), relational_floor.sum(), *none),
        ]
        for index, (name, dropped) in enumerate(zip(gold.relations, answered.dropped.tolist(), strict=True)):
            mine, rule = answered.relation == index, (_best(rules[name]), _query_alone(rules[name]))
            sums = of_questions[mine].sum(), answered.question_floor[mine].sum()
            parts.append((name, int(mine.sum()), dropped, *sums, *rule))
        for name, count, dropped, loss, floor, *rule in parts:
            means = [value / max(count, 1) for value in (loss, floor, loss - floor)]
            rows.append((replica.name, name, count, dropped, *means, *rule))
    return pd.DataFrame(rows, columns=COLUMNS)


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
        np.asarray(answers.of_windows(pack.model, pack.replica_map, params, bits_VJ, *chunk), np.float64)
        for chunk in zip(*chunks, strict=True)
    ]
    stacked = np.concatenate([part.reshape(len(pack.replicas), -1, *part.shape[3:]) for part in parts], axis=1)
    result = np.empty((len(pack.replicas), len(order), stacked.shape[-1]))
    result[:, order] = stacked[:, of_window, slot]
    return result
