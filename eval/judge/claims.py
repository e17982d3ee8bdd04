"""C1 and C2: does multi-head beat single-head, and can heads be too many? From the tables of a study to verdicts."""

import dataclasses

import numpy as np

from eval.judge import arms, asides, evidence, rules, sentences, stats
from eval.judge.comparison import Comparison, Verdict
from eval.judge.evidence import SEED, Evidence
from train import grid
from train.config import StudyConfig
from train.data import sources
from train.workdir import Workdir

CROSSED = (
    "grid.seeds=crossed runs each init and each data order several times, so its runs are no independent seeds: that "
    "is for claim C9, and C1 and C2 take grid.seeds=paired."
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
      looks: how often this claim's verdict has been read in this workdir, this time included.
      beside: the study's arms; without one of four times the tokens that agrees, heads 'learn faster' and do not
        'beat'.
    """
    words = {"faster": "beat" if arms.holds_longer(beside) else "learn faster than"}
    claims = config.claims
    confidence = 1 - 0.05 / claims.looks
    chosen = comparison.pairs(found.cells)
    lacks = missing(comparison, found, workdir, config)
    base = Verdict(
        comparison.id,
        comparison.claim.format(**words),
        rules.UNDECIDED,
        "",
        f"{rules.RULE}; the margin is {claims.margin:g} nats/token; a d_model's own verdict is under Holm over all",
        claims.margin,
        confidence,
        exploratory=looks > claims.looks,
        missing=tuple(lacks),
    )
    if lacks:  # nor is anything shown, since to look at half of it and go on is to look twice
        return dataclasses.replace(base, sentence=f"On {source}, {comparison.open.format(**words)}: {' '.join(lacks)}")
    tokens = found.tokens()
    differences = {name: evidence.difference(found, *pair) for name, pair in chosen.items()}
    shared = evidence.averaged(list(differences.values())).index
    arrays = {name: sums.loc[shared].to_numpy() for name, sums in differences.items()}
    weights = tokens.loc[next(iter(differences.values())).columns].to_numpy()
    judged, each = rules.judge_pooled(arrays, weights, claims.margin, confidence, found.apart)
    pooled = np.mean(list(arrays.values()), axis=0)
    verdict = dataclasses.replace(
        base,
        verdict=judged.verdict,
        effect=judged.deciding.mean,
        low=asides.number(judged.deciding.low),
        high=asides.number(judged.deciding.high),
        n=len(shared),
        files=judged.files,
        about=judged.about,
        parts=tuple(_part(name, chosen[name], found, part) for name, part in each.items()),
        details=asides.details(found, comparison, config, chosen, pooled, weights, judged, shared),
    )
    diverged = asides.divergence(found, [cell for pair in chosen.values() for cell in pair])
    notes = sentences.notes(comparison, verdict, found, judged, chosen, config)
    return dataclasses.replace(
        verdict,
        notes=(*notes, *sentences.of_arms(comparison, verdict, beside)),
        sentence=sentences.sentence(comparison, verdict, judged, diverged, words, config, source),
    )


def missing(comparison: Comparison, found: Evidence, workdir: Workdir, config: StudyConfig) -> list[str]:
    """Sentences on what is not there; with any of them the claim is undecided."""
    said = [CROSSED] if config.grid.seeds == "crossed" else []
    if not comparison.pairs(found.cells):
        pairs = comparison.sides(found.cells).values()
        lacks = [words for side, words in enumerate(comparison.wanted) if not any(len(pair[side]) for pair in pairs)]
        said.append(f"The tables have no cell with {' nor one with '.join(lacks or comparison.wanted)} to compare.")
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
    for name, pair in comparison.pairs(found.cells).items():
        if all(len(found.diverged(cell)) == found.count(cell) for cell in pair):
            said.append(f"Every run of {' and of '.join(pair)} diverged, so {name} has nothing to compare.")
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


def prospect(config: StudyConfig) -> str:
    """What the planned number of fresh seeds can decide, for before the training."""
    n, margin, alpha = len(grid.judged_seeds(config)), config.claims.margin, 0.05 / config.claims.looks
    if config.grid.seeds == "crossed":
        return f"No verdicts: {CROSSED}"
    if not config.grid.tuning_seeds:
        return "No verdicts: without grid.tuning_seeds the rates are chosen on the seeds that would be judged."
    if n < 2:
        return "One fresh seed gives no interval, so every verdict will be undecided; two seeds are the least."
    return (
        f"{n} fresh seeds: 'no difference of {margin:g} nats/token' is within reach (80 % power) only where the paired "
        f"difference varies by at most {stats.largest_spread(margin, n, alpha):.2g} from seed to seed. That is about "
        f"the same test documents; the verdict for new ones bears their choice too, an error that no number of seeds "
        f"lessens and that only the outcome shows: from {stats.largest_error(margin, alpha):.2g} on it alone puts it "
        f"out of reach."
    )
