"""C1 and C2: does multi-head beat single-head, and can heads be too many? From the tables of a study to verdicts."""

import dataclasses
import math

import numpy as np
import pandas as pd

from eval import arms, evidence, intervals, rules, stats
from eval.evidence import SEED, Evidence
from train import grid
from train.config import StudyConfig
from train.data import VOCAB_SIZE
from train.workdir import Workdir

FIXED_HEADS = 4  # a number of heads that no data chose, printed beside the best one
SIGN_SEEDS = 6  # from so many seeds on, agreement in sign is evidence: 2 / 2^6 = .03


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim as decided; losses in nats/token, None where there is no number.

    Attributes:
      id, claim: as in CLAIMS.
      verdict: `supported`, `refuted` or `undecided`.
      sentence: the outcome in words, naming the corpus.
      rule: what decides.
      effect, low, high: the deciding difference and its interval at `confidence`.
      n, files: fresh seeds, and effective number of source files.
      about: `new documents` or `these documents`.
      exploratory: seeds were added after a verdict had been read more often than claims.looks allows.
      missing: what keeps the claim from being judged at all.
      parts: of each d_model: name, the two cells, effect, low, high, verdict.
      notes: what a reader must know beside the sentence.
      details: everything else that was computed, by name.
    """

    id: str
    claim: str
    verdict: str
    sentence: str
    rule: str
    margin: float
    confidence: float
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    files: float | None = None
    about: str = ""
    exploratory: bool = False
    missing: tuple[str, ...] = ()
    parts: tuple[dict, ...] = ()
    notes: tuple[str, ...] = ()
    details: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a claim compares within each group of cells: the loss of the best of `left` less that of the best of
    `right`, each side's best chosen on the tune documents with the choosing seeds."""

    id: str
    claim: str
    left: str
    right: str
    supported: str
    refuted: str
    open: str

    def sides(self, cells: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """(left, right) cells of each group that one claim may compare: all else is equal within it."""
        own_width = (cells.num_heads * cells.d_k == cells.d_model).all()
        by_heads = self.id == "C2" and not own_width  # d_k varies at one number of heads
        keys = ["d_model", "num_layers", "num_heads" if by_heads else "series"]
        found = {}
        for (d_model, layers, third), group in cells.groupby(keys):
            of_left = group.num_heads == 1 if self.id == "C1" else group.d_k == 1
            name = f"d_model {d_model}" + (f", h = {third}" if by_heads else f", {third}" if third else "")
            name += f", {layers} layers" if cells.num_layers.nunique() > 1 else ""
            found[name] = (group[of_left], group[~of_left])
        return found


CLAIMS = (
    Comparison(
        "C1",
        "Several heads beat one at the same size",
        "h = 1",
        "the best h > 1",
        "several heads {faster} one",
        "several heads do not {faster} one",
        "it is open whether several heads {faster} one",
    ),
    Comparison(
        "C2",
        "Heads can be too many: at d_k = 1 the loss is higher",
        "d_k = 1",
        "the best d_k > 1",
        "heads can be too many",
        "heads of width 1 are not worse",
        "it is open whether heads of width 1 are worse",
    ),
)


def judge(
    comparison: Comparison,
    found: Evidence,
    workdir: Workdir,
    config: StudyConfig,
    source: str,
    looks: int,
    beside: list[arms.Arm],
) -> Verdict:
    """The verdict on C1 or C2.

    Args:
      source: name of the corpus.
      looks: how often a verdict has been read in this workdir, this time included.
      beside: the study's arms; without one of four times the tokens that agrees, heads 'learn faster' and do not
        'beat'.
    """
    words = {"faster": "beat" if arms.holds_longer(beside) else "learn faster than"}
    claims = config.claims
    confidence = 1 - 0.05 / claims.looks
    sides = comparison.sides(found.cells)
    sides = {name: pair for name, pair in sides.items() if len(pair[0]) and len(pair[1])}
    missing = _missing(comparison, found, workdir, config, sides)
    base = Verdict(
        comparison.id,
        comparison.claim,
        rules.UNDECIDED,
        "",
        f"{rules.RULE}; the margin is {claims.margin:g} nats/token",
        claims.margin,
        confidence,
        exploratory=looks > claims.looks,
        missing=tuple(missing),
    )
    if not sides:
        return dataclasses.replace(
            base, sentence=f"On {source}, {comparison.open.format(**words)}: {' '.join(missing)}"
        )
    tokens = found.tokens()
    chosen = {name: tuple(_best(side) for side in pair) for name, pair in sides.items()}
    differences = {name: evidence.difference(found, *pair) for name, pair in chosen.items()}
    shared = evidence.averaged(list(differences.values())).index
    arrays = {name: sums.loc[shared].to_numpy() for name, sums in differences.items()}
    weights = tokens.loc[next(iter(differences.values())).columns].to_numpy()
    if not len(shared):
        sentence = f"On {source}, {comparison.open.format(**words)}: the cells share no seed."
        return dataclasses.replace(base, sentence=sentence)
    judged, each = rules.judge_pooled(arrays, weights, claims.margin, confidence)
    pooled = np.mean(list(arrays.values()), axis=0)
    details = _details(found, comparison, config, chosen, pooled, weights, judged, shared)
    verdict = dataclasses.replace(
        base,
        verdict=rules.UNDECIDED if missing else judged.verdict,
        effect=judged.deciding.mean,
        low=_number(judged.deciding.low),
        high=_number(judged.deciding.high),
        n=len(shared),
        files=judged.files,
        about=judged.about,
        parts=tuple(_part(name, chosen[name], found, part) for name, part in each.items()),
        notes=(*_notes(found, judged, details, chosen, config), *_of_arms(comparison, beside)),
        details=details,
    )
    return dataclasses.replace(verdict, sentence=_sentence(comparison, verdict, judged, words, config, source))


def _of_arms(comparison: Comparison, beside: list[arms.Arm]) -> list[str]:
    said = [
        f"Arm {arm.path} ({arm.words}): {arm.verdicts[comparison.id]['verdict']}. "
        f"{arm.verdicts[comparison.id]['sentence']}"
        for arm in beside
    ]
    if comparison.id == "C2":
        if arms.lays_it_to_d_k(beside):
            said.append(
                "It is the width: so also where h is fixed and d_k varies, and with the best scale of the logits."
            )
        else:
            said.append(
                "Whether it is the width or the number of heads is not shown: that takes an arm with h fixed and d_k "
                "varied, and one with the best scale of the logits (--arms)."
            )
    return said


def _best(side: pd.DataFrame) -> str:
    return rules.best(dict(zip(side.cell, side.tune_loss, strict=True)))


def _missing(comparison, found: Evidence, workdir: Workdir, config: StudyConfig, sides) -> list[str]:
    """Sentences on what is not there; with any of them the claim is undecided."""
    said = []
    if not sides:
        wanted = {"C1": ("h = 1", "more than one head"), "C2": ("d_k = 1", "d_k above 1")}[comparison.id]
        pairs = comparison.sides(found.cells).values()
        lacks = [words for side, words in enumerate(wanted) if not any(len(pair[side]) for pair in pairs)]
        said.append(f"The tables have no cell with {' nor one with '.join(lacks or wanted)} to compare.")
    if not config.grid.tuning_seeds:
        said.append(
            "grid.tuning_seeds is empty, so rates and the best h were chosen on the very seeds that would be judged."
        )
    judged = set(found.cells.cell)
    cells = grid.cells_of(config, VOCAB_SIZE)
    here = {cell.shape for cell in cells if cell.name in judged}  # of several logit scales one is judged
    for cell in cells:
        if cell.shape not in here:
            said.append(f"{cell.name} has no result ({workdir.cell(cell.name).status()['state']}).")
    planned = set(grid.judged_seeds(config))
    for row in found.cells.itertuples():
        lacks = planned - set(map(tuple, found.runs[found.runs.cell == row.cell][SEED].to_numpy()))
        if lacks:
            said.append(f"{row.cell} lacks {len(lacks)} of {len(planned)} fresh seeds.")
    if found.cells.rates.nunique() > 1:
        counts = ", ".join(f"{row.cell} {row.rates}" for row in found.cells.itertuples())
        said.append(f"The cells were not tuned alike: rates tried are {counts}.")
    if len(planned) < 2:
        said.append("One fresh seed gives no interval; two are the least.")
    return said


def _details(found, comparison, config, chosen, pooled, tokens, judged, shared) -> dict:
    values = pooled.sum(axis=1) / tokens.sum()
    alpha = 0.05 / config.claims.looks
    of_documents = intervals.variance_of_documents(pooled, tokens) if judged.about == "new documents" else 0.0
    details = {
        "these_documents": _ends(judged.these),
        "new_documents": _ends(judged.new),
        "values": dict(zip([f"{init}" for init, _ in shared], values.tolist(), strict=True)),
        "negative_parts": list(judged.negative),
        "diverged": {
            cell: f"{len(found.diverged(cell))} of {_runs(found, cell)}" for pair in chosen.values() for cell in pair
        },
        "correlation": _correlation(found, chosen, shared, tokens),
        "fixed_heads": _fixed_heads(found, comparison, config),
        "shared_rate": _shared_rate(found, comparison, config),
        "survivors": _survivors(found, chosen, config),
    }
    if len(values) > 1:
        interval = intervals.new_documents if judged.about == "new documents" else intervals.these_documents
        details["equivalent"] = intervals.within(interval, pooled, tokens, config.claims.margin)
        details["bootstrap"] = intervals.bootstrap(pooled, tokens, 1 - alpha)
        details["seeds_to_decide"] = stats.seeds_to_decide(values, config.claims.margin, of_documents, alpha)
    if len(values) >= SIGN_SEEDS:
        agree, p_value = stats.sign_agreement(values)
        details["sign"] = {"agree": agree, "of": len(values), "p_value": p_value}
    return details


def _correlation(found: Evidence, chosen, shared, tokens) -> float | None:
    """Of the two sides' losses over seeds, averaged over the groups: what pairing took out. Nothing depends on it."""
    sides = [
        np.mean([found.sums(pair[side]).loc[shared].sum(axis=1) / tokens.sum() for pair in chosen.values()], axis=0)
        for side in (0, 1)
    ]
    if len(shared) < 3 or not np.std(sides[0]) or not np.std(sides[1]):
        return None
    return float(np.corrcoef(sides)[0, 1])


def _fixed_heads(found: Evidence, comparison: Comparison, config: StudyConfig) -> dict | None:
    """C1 against FIXED_HEADS heads, which no data chose; None where a group has no such cell."""
    if comparison.id != "C1":
        return None
    parts = []
    for left, right in comparison.sides(found.cells).values():
        fixed = right[right.num_heads == FIXED_HEADS]
        if left.empty or fixed.empty:
            return None
        parts.append(evidence.difference(found, _best(left), _best(fixed)))
    pooled = evidence.averaged(parts)
    return _judged(pooled, found.tokens(), config) if len(pooled) else None


def _survivors(found: Evidence, chosen: dict, config: StudyConfig) -> dict | None:
    """The verdict without the seeds of which a run diverged; None if none did or fewer than two are left."""
    lost = [found.diverged(cell) for pair in chosen.values() for cell in pair]
    if not any(len(seeds) for seeds in lost):
        return None
    pooled = evidence.averaged([evidence.difference(found, *pair) for pair in chosen.values()])
    for seeds in lost:
        pooled = pooled[~pooled.index.isin(seeds)]
    return (
        _judged(pooled, found.tokens(), config) if len(pooled) > 1 else {"n": len(pooled), "verdict": rules.UNDECIDED}
    )


def _judged(pooled: pd.DataFrame, tokens: pd.Series, config: StudyConfig) -> dict:
    confidence = 1 - 0.05 / config.claims.looks
    judged = rules.judge(pooled.to_numpy(), tokens.loc[pooled.columns].to_numpy(), config.claims.margin, confidence)
    return {"n": len(pooled), "verdict": judged.verdict, **_ends(judged.deciding)}


def _shared_rate(found: Evidence, comparison: Comparison, config: StudyConfig) -> dict | None:
    """What one rate for all cells would have said: the rate of the lowest mean tune loss, judged on the choosing seeds
    and tune documents, as published comparisons do. Never a verdict of ours."""
    tried = found.choosing.pivot_table(index="learning_rate", columns="cell", values="counted")
    tried = tried[found.cells.cell].dropna()
    if tried.empty:
        return None
    rate = tried.mean(axis=1).idxmin()
    at_rate = found.choosing[found.choosing.learning_rate == rate].pivot_table(
        index=SEED, columns="cell", values="counted"
    )
    values = []
    for left, right in comparison.sides(found.cells).values():
        if len(left) and len(right):
            best = [min(side.cell, key=lambda name: tried.loc[rate, name]) for side in (left, right)]
            values.append(at_rate[best[0]] - at_rate[best[1]])
    if not values:
        return None
    interval = intervals.over_seeds(np.mean(values, axis=0), 1 - 0.05 / config.claims.looks)
    verdict = rules.decide(interval.low, interval.high, config.claims.margin)
    return {"rate": float(rate), "n": len(at_rate), "verdict": verdict, **_ends(interval)}


def _part(name: str, pair: tuple[str, str], found: Evidence, judged: rules.Judged) -> dict:
    heads = found.cells.set_index("cell").num_heads
    return {
        "name": name,
        "cells": list(pair),
        "num_heads": [int(heads[cell]) for cell in pair],
        "verdict": judged.verdict,
        **_ends(judged.deciding),
    }


def _notes(found: Evidence, judged: rules.Judged, details: dict, chosen: dict, config: StudyConfig) -> list[str]:
    said = []
    if details.get("equivalent"):
        said.append(
            f"No difference that matters: the 90 % interval lies within ± {config.claims.margin:g} nats/token (two "
            f"one-sided tests)."
        )
    if judged.negative:
        said.append(f"The effect is below 0 (Holm) at {', '.join(judged.negative)}.")
    if judged.files < intervals.ENOUGH_DOCUMENTS:
        said.append(
            f"The test files weigh as {judged.files:.1f} of equal length; {intervals.ENOUGH_DOCUMENTS} are needed to "
            f"speak of new documents, so this is about these ones."
        )
    if 1 < len(details["values"]) < SIGN_SEEDS:
        said.append(f"With fewer than {SIGN_SEEDS} seeds a skewed effect can make the interval too narrow.")
    lost = {cell: count for cell, count in details["diverged"].items() if not count.startswith("0 ")}
    if lost:
        rates = ", ".join(f"{cell} {count}" for cell, count in lost.items())
        survivors = details["survivors"]
        said.append(
            f"Runs diverged, each counted as the unigram entropy, {found.unigram:.3f}: {rates}. On the survivors alone "
            f"(n = {survivors['n']}): {survivors['verdict']}."
        )
    cells = found.cells.set_index("cell")
    edges = [f"{cell} ({cells.edge[cell]})" for pair in chosen.values() for cell in pair if cells.edge[cell]]
    if edges:
        said.append(
            f"The chosen rate lies at the edge of those tried, so a better one may lie beyond: {', '.join(edges)}."
        )
    return said


def _sentence(comparison, verdict: Verdict, judged: rules.Judged, words: dict, config, source: str) -> str:
    outcome = {
        rules.SUPPORTED: comparison.supported,
        rules.REFUTED: comparison.refuted,
        rules.UNDECIDED: comparison.open,
    }[verdict.verdict]
    by = "" if verdict.verdict == rules.SUPPORTED else f" by {config.claims.margin:g} nats/token or more"
    more = "above" if verdict.effect >= 0 else "below"
    tokens = config.train.steps * config.train.batch_size * config.data.seq_len
    ends = "" if verdict.low is None else f" ({1 - 0.05 / config.claims.looks:.4g} interval {_range(judged.deciding)})"
    said = (
        f"On {source}, {outcome.format(**words)}{by}: after {tokens:,} tokens the test loss of {comparison.left} lies "
        f"{abs(verdict.effect):.3f} nats/token {more} that of {comparison.right}{ends}; {verdict.n} fresh "
        f"seed{'' if verdict.n == 1 else 's'}, {verdict.about}."
    )
    if verdict.missing:
        return f"{said} Not judged: {' '.join(verdict.missing)}"
    if verdict.verdict == rules.UNDECIDED:
        plan = verdict.details.get("seeds_to_decide")
        said += f" To decide: {seeds_in_words(plan)}."
    return ("Exploratory, since seeds were added after a look: " if verdict.exploratory else "") + said


def seeds_in_words(plan: tuple[int, int] | None) -> str:
    """'14 to 60 seeds', or that files, not seeds, are short."""
    if plan is None:
        return "no number of seeds would, the documents alone exceed the margin: more files"
    low, high = (f"{count:,}" if count < stats.MOST_SEEDS else f"more than {count:,}" for count in plan)
    return f"{low} to {high} seeds" if low != high else f"{low} seeds"


def _runs(found: Evidence, cell: str) -> int:
    return int((found.runs.cell == cell).sum())


def _ends(interval: intervals.Interval) -> dict:
    return {"effect": interval.mean, "low": _number(interval.low), "high": _number(interval.high)}


def _range(interval: intervals.Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def prospect(config: StudyConfig) -> str:
    """What the planned number of fresh seeds can decide, for before the training."""
    n, margin = len(grid.judged_seeds(config)), config.claims.margin
    if not config.grid.tuning_seeds:
        return "No verdicts: without grid.tuning_seeds the rates are chosen on the seeds that would be judged."
    if n < 2:
        return "One fresh seed gives no interval, so every verdict will be undecided; two seeds are the least."
    spread = stats.largest_spread(margin, n, 0.05 / config.claims.looks)
    return (
        f"{n} fresh seeds: 'no difference of {margin:g} nats/token' is within reach (80 % power) only where the paired "
        f"difference varies by at most {spread:.2g} from seed to seed."
    )
