"""C1 and C2: does multi-head beat single-head, and can heads be too many? From the tables of a study to verdicts."""

import dataclasses

import numpy as np

from eval import arms, asides, evidence, intervals, rules, stats
from eval.comparison import Comparison, Verdict, best
from eval.evidence import SEED, Evidence
from train import grid, sources
from train.config import StudyConfig
from train.workdir import Workdir


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
    chosen = {name: tuple(best(side) for side in pair) for name, pair in sides.items()}
    differences = {name: evidence.difference(found, *pair) for name, pair in chosen.items()}
    shared = evidence.averaged(list(differences.values())).index
    arrays = {name: sums.loc[shared].to_numpy() for name, sums in differences.items()}
    weights = tokens.loc[next(iter(differences.values())).columns].to_numpy()
    if not len(shared):
        sentence = f"On {source}, {comparison.open.format(**words)}: the cells share no seed."
        return dataclasses.replace(base, sentence=sentence)
    judged, each = rules.judge_pooled(arrays, weights, claims.margin, confidence)
    pooled = np.mean(list(arrays.values()), axis=0)
    details = asides.details(found, comparison, config, chosen, pooled, weights, judged, shared)
    verdict = dataclasses.replace(
        base,
        verdict=rules.UNDECIDED if missing else judged.verdict,
        effect=judged.deciding.mean,
        low=asides.number(judged.deciding.low),
        high=asides.number(judged.deciding.high),
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
    cells = grid.cells_of(config, sources.vocab_size(config.data))
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


def _part(name: str, pair: tuple[str, str], found: Evidence, judged: rules.Judged) -> dict:
    heads = found.cells.set_index("cell").num_heads
    return {
        "name": name,
        "cells": list(pair),
        "num_heads": [int(heads[cell]) for cell in pair],
        "verdict": judged.verdict,
        **asides.ends(judged.deciding),
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
    if 1 < len(details["values"]) < asides.SIGN_SEEDS:
        said.append(f"With fewer than {asides.SIGN_SEEDS} seeds a skewed effect can make the interval too narrow.")
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
    ends = "" if verdict.low is None else f" ({100 * verdict.confidence:.4g} % interval {_range(judged.deciding)})"
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


def _range(interval: intervals.Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}"


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
