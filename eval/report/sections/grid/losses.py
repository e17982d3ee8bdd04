"""Test loss against heads: every seed, the differences to one head, and a row a cell."""

from collections.abc import Iterable

import pandas as pd

from eval.judge.evidence import Evidence
from eval.judge.losses import SEED
from eval.judge.paired import asides
from eval.judge.paired.comparison import HEADS, WIDTHS
from eval.report import figures as plots
from eval.report.style import Drawn

TABLES = ("cells", "replicas", "documents")


def context(evidence: Evidence, verdicts) -> dict | None:
    return None if evidence.cells.empty else {"may_be_best": may_be_best(evidence)}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    runs, paired = evidence.losses.runs, pairs(evidence)
    bounds, varied, made = plots.limits(runs), plots.varied(runs), {}
    of_losses = [
        f"{run.counted:.4f}" + f" (diverged at step {run.diverged_at})" * (run.status == "diverged")
        for run in runs.itertuples()
    ]
    tips, pair_tips = _tips(runs, of_losses), _tips(paired, paired.difference.map("{:+.4f}".format))
    for axis, words in varied.items() if len(paired) else ():
        alt = f"Paired difference in test loss to one head, for every seed and d_model, against {words}."
        made[f"difference_{axis}"] = Drawn(plots.difference(paired, axis), alt, pair_tips)
    for index, (d_model, of_width) in enumerate(runs.groupby("d_model")):
        for axis, words in varied.items():
            figure = plots.loss(of_width, axis, bounds[d_model], evidence.bigram, index)
            alt = f"Test loss of every seed at the tuned learning rate against {words}, d_model {d_model}."
            made[f"loss_{axis}_d{d_model:03d}"] = Drawn(figure, alt, tips)
    return made


def _tips(runs: pd.DataFrame, said: Iterable[str]) -> dict[str, str]:
    """What is shown over the mark of each of `runs`."""
    each = zip(runs.cell, runs.init_seed, runs.data_seed, said, strict=True)
    return {plots.gid(cell, init, data): f"{cell}, seed {init}: {words}" for cell, init, data, words in each}


def pairs(evidence: Evidence) -> pd.DataFrame:
    """Per cell and seed: `difference`, its test loss less that of h = 1 of the same d_model, series and depth."""
    runs, keys = evidence.losses.runs, ["d_model", "series", "num_layers", *SEED]
    single = runs[runs.num_heads == 1][[*keys, "counted"]]
    joined = runs[runs.num_heads > 1].merge(single, on=keys, suffixes=("", "_single"))
    return joined.assign(difference=joined.counted - joined.counted_single)


def may_be_best(evidence: Evidence) -> dict[str, bool]:
    """Whether each cell is in the 95 % set of the best of its group (asides.best_set). In a group all else is equal but
    h and d_k, or d_k alone where h is fixed; where no two cells share such a group, d_k is fixed. A cell with none
    beside it has no answer; empty with crossed seeds, which are no blocks."""
    if evidence.config.grid.seeds == "crossed":
        return {}
    by_heads, by_width = (
        [pd.concat(sides).cell.tolist() for sides in comparison.sides(evidence.losses.cells).values()]
        for comparison in (HEADS, WIDTHS)
    )
    groups = by_width if max(map(len, by_width)) > 1 else by_heads
    sets = [asides.best_set(evidence.losses, group, 0.95)[0] for group in groups if len(group) > 1]
    return {cell: inside for found in sets for cell, inside in found.items()}
