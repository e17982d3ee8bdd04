"""The verdict on a difference in loss that is paired by seed: from the tables of a study to what a claim says."""

import dataclasses
from collections.abc import Callable

from eval.judge import losses, rules, stats
from eval.judge.evidence import Evidence
from eval.judge.paired import asides, showing
from eval.judge.paired.comparison import Comparison
from eval.judge.verdict import Verdict
from train import grid
from train.config import StudyConfig

RULE = rules.RULE + "; the margin is {margin:g} nats/token; a d_model's own verdict is under Holm over all"
CROSSED = (
    "grid.seeds=crossed runs each init and each data order several times, so its runs are no independent seeds: that "
    "is for claim C9, and C1 and C2 take grid.seeds=paired."
)


def applies(evidence: Evidence) -> str:
    """Why such a claim is not judged here at all; '' where it is."""
    if evidence.config.dose.relations:
        return "A study of doses stops its runs at a threshold, so it has no losses to compare."
    return "" if len(evidence.cells) else "No judged run is evaluated yet."


def judge(
    evidence: Evidence,
    comparison: Comparison,
    claim: tuple[str, str],
    outcomes: dict[str, str],
    aside: Callable[[Evidence], tuple[dict, list[str]]],
) -> Verdict:
    """The verdict on a claim about the two sides of `comparison`.

    Args:
      claim: its ID and what is claimed.
      outcomes: by verdict, the outcome in words.
      aside: what the claim computes of its own beside the verdict: details by name, and notes.
    """
    found, margin, confidence = evidence.losses, evidence.config.claims.margin, evidence.confidence
    chosen, lacks = comparison.pairs(found.cells), missing(evidence, comparison)
    base = Verdict(*claim, rules.UNDECIDED, "", RULE.format(margin=margin), margin, confidence, missing=tuple(lacks))
    if lacks:  # nor is anything shown, since to look at half of it and go on is to look twice
        said = f"On {evidence.corpus.source}, {outcomes[rules.UNDECIDED]}: {' '.join(lacks)}"
        return dataclasses.replace(base, sentence=said)
    differences = {name: losses.difference(found, *pair) for name, pair in chosen.items()}
    pooled = losses.averaged(list(differences.values()))
    arrays = {name: sums.loc[pooled.index].to_numpy() for name, sums in differences.items()}
    weights = found.tokens().loc[pooled.columns].to_numpy()
    judged, each = rules.judge_pooled(arrays, weights, margin, confidence, found.apart)
    heads = found.cells.set_index("cell").num_heads
    own_details, own_notes = aside(evidence)
    verdict = dataclasses.replace(
        base,
        verdict=judged.verdict,
        **asides.ends(judged.deciding),
        n=len(pooled),
        files=judged.files,
        about=judged.about,
        parts=tuple(
            {
                "name": name,
                "cells": list(chosen[name]),
                "num_heads": [int(heads[cell]) for cell in chosen[name]],
                "verdict": part.verdict,
                **asides.ends(part.deciding),
            }
            for name, part in each.items()
        ),
        details=asides.details(evidence, comparison, chosen, pooled, weights, judged) | own_details,
    )
    return dataclasses.replace(
        verdict,
        notes=tuple(showing.notes(comparison, verdict, evidence, own_notes)),
        sentence=showing.sentence(comparison, verdict, outcomes[judged.verdict], evidence),
    )


def look(evidence: Evidence, comparison: Comparison) -> dict | None:
    """What a reading of the verdict looks at: seeds, and the cells and rates that were chosen to compare. None while
    something is missing, since no verdict is read then."""
    if missing(evidence, comparison):
        return None
    cells = evidence.losses.cells
    rates = cells.set_index("cell").learning_rate
    chosen = [[cell, float(rates[cell])] for pair in comparison.pairs(cells).values() for cell in pair]
    return {"seeds": sorted(map(list, grid.judged_seeds(evidence.config))), "chosen": chosen}


def missing(evidence: Evidence, comparison: Comparison) -> list[str]:
    """Sentences on what is not there; with any of them the claim is undecided."""
    found, config, planned = evidence.losses, evidence.config, set(grid.judged_seeds(evidence.config))
    names, sides = found.cells.cell, comparison.sides(found.cells).values()
    lacks = [words for side, words in enumerate(comparison.wanted) if not any(len(pair[side]) for pair in sides)]
    here = {cell.shape for cell in evidence.planned if cell.name in set(names)}  # of several logit scales one is judged
    unjudged = [cell.name for cell in evidence.planned if cell.shape not in here]
    run = {cell: set(map(tuple, found.runs[found.runs.cell == cell][losses.SEED].to_numpy())) for cell in names}
    counts = ", ".join(f"{row.cell} {row.rates}" for row in found.cells.itertuples())
    pairs = comparison.pairs(found.cells)
    said = {
        CROSSED: config.grid.seeds == "crossed",
        f"The tables have no cell with {' nor one with '.join(lacks or comparison.wanted)} to compare.": not pairs,
        "grid.tuning_seeds is empty, so rates and the best h were chosen on the very seeds that would be judged.":
            not config.grid.tuning_seeds,
        **{f"{name} has no result ({evidence.workdir.cell(name).status()['state']}).": True for name in unjudged},
        **{f"{cell} lacks {len(planned - seeds)} of {len(planned)} fresh seeds.": planned - seeds
           for cell, seeds in run.items()},
        f"The cells were not tuned alike: rates tried are {counts}.": found.cells.rates.nunique() > 1,
        **{f"Every run of {' and of '.join(pair)} diverged, so {name} has nothing to compare.":
           all(len(found.diverged(cell)) == found.count(cell) for cell in pair) for name, pair in pairs.items()},
        "One fresh seed gives no interval; two are the least.": len(planned) < 2,
    }  # fmt: skip
    return [sentence for sentence, holds in said.items() if holds]


def prospect(config: StudyConfig) -> str:
    """What the planned number of fresh seeds can decide, for before the training."""
    n, margin, alpha = len(grid.judged_seeds(config)), config.claims.margin, 0.05 / config.claims.looks
    if config.grid.seeds == "crossed":
        return f"No verdicts but those of C9: {CROSSED}"
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
