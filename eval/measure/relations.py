"""Loss on each relation of a relations language, beside its floor: what the language's own choices cost.

Dimension key: R replica, V vocabulary, J bit.
"""

import functools
import math

import jax
import numpy as np
import pandas as pd

from eval.restore import Restored
from mha.transformer import ModelConfig
from train import grid
from train.config import EvalConfig, StudyConfig
from train.data.corpora import Corpus, eval_windows
from train.data.gold import EvalWindows
from train.data.relations import doses, parse, shortcuts
from train.data.relations.language import Language
from train.losses import answers
from train.losses.documents import in_dispatches
from train.run.packs import Pack

IN_STUDY = True
NEEDS = ("losses",)
TOKENS, ANSWERS, RELATIONAL = "every token", "answers", "relational bits"
COLUMNS = ["replica", "relation", "questions", "dropped", "loss", "floor", "excess", "shortcut", "query_alone"]


def asked(corpus: Corpus, windows: EvalWindows) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The answers that `windows`, all of one split, count, and their questions; an answer of which any question's
    source stands before its window is left out whole.

    Returns:
      A row an answer: `window` and `place` in it that it is predicted at; `mask`, its relational bits, bit j as 2 ** j;
      `floor`, its recorded -log p. A row a question: `answer`, by the number of its row; `relation`, `bit`, `floor`.
      And by relation how many questions are left out.
    """
    gold, at = corpus.gold, ["document", "query"]
    questions = pd.DataFrame(gold.questions._asdict())
    questions = questions[questions.document.between(windows.document[0], windows.document[-1])]
    earliest = pd.DataFrame(gold.links._asdict()).groupby([*at, "relation"]).key.min().rename("earliest")
    questions = questions.join(earliest, on=[*at, "relation"])
    questions["window"] = windows.locate(*(questions[name].to_numpy(np.int64) for name in at))
    cut = questions.earliest < windows.begin[questions.window]
    kept = ~cut.groupby([questions[name] for name in at]).transform("any")
    dropped = np.bincount(questions.relation[~kept], minlength=len(gold.relations))
    questions = questions[kept].assign(mask=lambda rows: 2 ** rows.bit.astype(np.int64), floor=lambda rows: -rows.log_p)
    groups = questions.groupby(at)
    answers = groups.agg(window=("window", "first"), mask=("mask", "sum")).reset_index()
    of_token = corpus.offsets[answers.document] + answers["query"] + 1 - corpus.offsets[gold.first]
    answers = answers.assign(place=answers["query"] - windows.begin[answers.window], floor=-gold.log_p[of_token])
    return answers, questions.assign(answer=groups.ngroup()), dropped


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
    most = max(len(seeds), grid.most_replicas(config))  # rows, so that one program serves all packs
    params = jax.tree.map(lambda leaf: np.resize(leaf, (most, *leaf.shape[1:])), restored.params)
    seen = answers.of_seeds(pack.model, params, config, pack.dose, split, seeds)
    if split == ("tune" if grid.chooses(pack.replicas[0], config) else "test"):  # that of the looks
        diverged = np.asarray(restored.diverged_at) >= 0  # which counts as chance
        last = np.where(diverged, math.log(2), [each["loss"] for each in seen])
        restored.check(last, "relational losses", lambda trained: [one["loss"] for one in trained["outcomes"]])
    for replica, each in zip(pack.replicas, seen, strict=True):
        spoken = doses.spoken(config.data, pack.dose, replica.data_seed)
        questions = doses.looked_at(config, pack.dose, split, replica.data_seed).questions
        by_name = {rule.name: rule for rule in _rules(spoken, 0)}
        rules = [by_name[name] for name in spoken.relations]
        told = [(rule.share, rule.best_excess, rule.query_alone_excess) for rule in rules]
        shares, best, alone = np.array(told).T
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


def _of_corpus(restored: Restored, split: str, config: EvalConfig, needed: dict) -> pd.DataFrame:
    pack, corpus, data = restored.pack, restored.corpus, restored.study.data
    windows = eval_windows(corpus, split, pack.model.seq_len, config.stride or pack.model.seq_len)
    answered, questions, dropped = asked(corpus, windows)
    nats = _answer_losses(pack, restored.params, corpus, windows, answered, config.batch_size)  # (R, answers, J + 2)
    gold, (first, last) = corpus.gold, corpus.splits[split]
    begin, end = corpus.offsets[[first, last]] - corpus.offsets[gold.first]
    relational_floor = np.bincount(questions.answer, questions.floor, len(answered)).sum()
    tokens, of_tokens = int(corpus.num_tokens[first:last].sum()), needed["losses"].groupby("replica").loss_sum.sum()
    rules = {relation.name: relation for relation in _rules(parse.language(data), data.language_seed)}
    rows, none = [], (math.nan, math.nan)
    for replica, summed in zip(pack.replicas, nats, strict=True):
        of_questions = summed[questions.answer, questions.bit]
        parts = [
            (TOKENS, tokens, 0, of_tokens[replica.name], -gold.log_p[begin:end].sum(), *none),
            (ANSWERS, len(summed), 0, summed[:, -1].sum(), answered.floor.to_numpy().sum(), *none),
            (RELATIONAL, len(questions), 0, summed[:, -2].sum(), relational_floor, *none),
        ]
        for index, name in enumerate(gold.relations):
            mine, rule = questions.relation == index, (rules[name].best_excess, rules[name].query_alone_excess)
            sums = of_questions[mine].sum(), questions.floor[mine].to_numpy().sum()
            parts.append((name, int(mine.sum()), int(dropped[index]), *sums, *rule))
        for name, count, lost, loss, floor, *rule in parts:
            means = [value / max(count, 1) for value in (loss, floor, loss - floor)]
            rows.append((replica.name, name, count, lost, *means, *rule))
    return pd.DataFrame(rows, columns=COLUMNS)


def _answer_losses(
    pack: Pack, params: dict, corpus: Corpus, windows: EvalWindows, found: pd.DataFrame, batch_size: int
) -> np.ndarray:
    """float64 (R, answers, J + 2) in nats: -log of the probability that bit j is right, for each j; that all bits of
    the mask are; that the answer is."""
    order = np.argsort(found.window.to_numpy(), kind="stable")
    of_window, place, mask = (found[name].to_numpy()[order] for name in ("window", "place", "mask"))
    slot = np.arange(len(order)) - np.searchsorted(of_window, of_window)
    width = int(slot.max(initial=0)) + 1
    places, masks = np.zeros((2, len(windows.document), width), np.int32)
    places[of_window, slot], masks[of_window, slot] = place, mask
    bits_VJ = np.full((pack.model.vocab_size, corpus.gold.answer_bits.shape[1]), -1, np.int8)
    bits_VJ[: len(corpus.gold.answer_bits)] = corpus.gold.answer_bits
    parts = [
        np.asarray(answers.of_windows(pack.model, pack.replica_map, params, bits_VJ, *chunk), np.float64)
        for chunk in in_dispatches((windows.tokens, windows.length, places, masks), batch_size)
    ]
    stacked = np.concatenate([part.reshape(len(pack.replicas), -1, *part.shape[3:]) for part in parts], axis=1)
    result = np.empty((len(pack.replicas), len(order), stacked.shape[-1]))
    result[:, order] = stacked[:, of_window, slot]
    return result
