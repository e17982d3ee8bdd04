"""What claims that each model answers by itself (rule M) share: the cell, its seeds, and the form of the verdict."""

import dataclasses

import pandas as pd

from eval.judge import intervals, losses, rule_m, rules
from eval.judge.evidence import Evidence
from eval.judge.paired.comparison import best
from eval.judge.verdict import Shown, Verdict
from train import grid
from train.workdir import read_table

CROSSED = "grid.seeds=crossed runs each init and each data order several times, so its runs are no independent seeds."


def primary(evidence: Evidence) -> str:
    """The cell that is judged: claims.cell, or of the largest d_model the best h > 1 on tune (else h = 1). Of doses,
    which have no losses to compare, the last cell of the grid: the widest, the most heads, the largest dose."""
    if named := evidence.config.claims.cell:
        return named
    if evidence.config.dose.relations:
        return evidence.planned[-1].name
    cells = evidence.losses.cells
    widest = cells[cells.d_model == cells.d_model.max()]
    several = widest[widest.num_heads > 1]
    return best(several if len(several) else widest)


def cells(evidence: Evidence) -> list[str]:
    """Every judged cell, the primary one first."""
    first = primary(evidence)
    return [first, *(cell for cell in evidence.losses.cells.cell if cell != first)]


def runs(evidence: Evidence, cell: str) -> dict[str, bool]:
    """The judged runs of a cell by name, each with whether it diverged."""
    mine = evidence.losses.runs[evidence.losses.runs.cell == cell]
    names = [grid.Replica(*run).name for run in mine[["learning_rate", *losses.SEED]].itertuples(index=False)]
    return dict(zip(names, mine.status == "diverged", strict=True))


def rows(evidence: Evidence, table: str) -> pd.DataFrame:
    """results/<table>.parquet of the judged runs, each at its cell's chosen rate, with the columns `d_model`,
    `num_heads`, `num_layers` of the cell; empty where there is none, or no loss yet by which a rate is chosen. Runs
    again from perturbed weights are left out."""
    path = evidence.workdir.results / f"{table}.parquet"
    if not path.exists() or not (len(evidence.cells) or evidence.config.dose.relations):
        return pd.DataFrame()
    found = read_table(path)
    judged = ~found.init_seed.isin(evidence.config.grid.tuning_seeds)
    found = found[judged & ~found.replica.str.endswith(f"_{grid.PERTURBED}")]
    if len(evidence.cells):
        found = found.merge(evidence.cells[["cell", "learning_rate"]])
    shapes = pd.DataFrame(
        [
            {
                "cell": cell.name,
                "d_model": cell.model.d_model,
                "num_heads": cell.model.num_heads,
                "num_layers": cell.model.num_layers,
            }
            for cell in evidence.planned
        ]
    )
    return found.merge(shapes, on="cell")


def best_on_tune(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one role's rows, a row a head and split, those of each replica's head of the largest effect on `tune`, as they
    are on `test`."""
    tune = rows[(rows.split == "tune") & rows.effect.notna()].sort_values("effect", kind="stable")
    best = tune.groupby("replica").tail(1)[["replica", "layer", "head"]]
    return rows[rows.split == "test"].merge(best)


def seeds(evidence: Evidence) -> list[tuple[int, int]]:
    """(init seed, data seed) of the runs that are judged; those without a row of their own answer neither way."""
    return list(grid.judged_seeds(evidence.config))


def by_seed(found: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    """Rows by (init seed, data seed)."""
    return {(int(pair[0]), int(pair[1])): mine for pair, mine in found.groupby(losses.SEED)}


def missing(evidence: Evidence, table: pd.DataFrame, cell: str, lacks: str) -> list[str]:
    """Sentences on what keeps such a claim from being tested in `cell`.

    Args:
      table: what was measured of its judged runs on test, with the column `file`.
      lacks: what to say where there is none of it.
    """
    known, planned = set(evidence.losses.cells.cell), len(grid.judged_seeds(evidence.config))
    if cell not in known:
        return [f"claims.cell={cell} has no judged run; the cells that have are {', '.join(sorted(known))}."]
    names, files = runs(evidence, cell), table.file.nunique() if len(table) else 0
    found = len(names)
    said = {
        CROSSED: evidence.config.grid.seeds == "crossed",
        lacks: table.empty,
        f"{cell} has {found} fresh seeds of {planned}.": found < planned,
        f"Rule M takes {rule_m.FEWEST_SEEDS} fresh seeds or more, and {cell} has {found}.":
            found < rule_m.FEWEST_SEEDS,
        f"Of source files the test split has {files}, and the rule takes {intervals.ENOUGH_DOCUMENTS} or more: raise "
        f"data.test_fraction or data.max_bytes.": 0 < files < intervals.ENOUGH_DOCUMENTS,
    }  # fmt: skip
    return [sentence for sentence, holds in said.items() if holds]


def look(evidence: Evidence) -> dict:
    """What a reading of the verdict looks at: the seeds, the cell and its rate."""
    cell = primary(evidence)
    rate = evidence.losses.cells.set_index("cell").learning_rate[cell]
    return {"seeds": sorted(map(list, grid.judged_seeds(evidence.config))), "chosen": [[cell, float(rate)]]}


def about(evidence: Evidence, tokens) -> tuple[str, float]:
    """What the verdict speaks of, and the effective number of source files."""
    files = intervals.effective_documents(tokens)
    enough = evidence.losses.apart and files >= intervals.ENOUGH_DOCUMENTS
    return "new documents" if enough else "these documents", files


def decided(
    verdict: Verdict, evidence: Evidence, answers: dict[str, dict[str, str]], outcomes: dict, tokens
) -> Verdict:
    """`verdict` as rule M decides it on the answers of the first cell's seeds.

    Args:
      answers: by cell, the first the one that is judged, the answer of each judged run by name.
      outcomes: by verdict, the outcome in words.
      tokens: of each source file.
    """
    shares = {cell: rule_m.decide([*own.values()], verdict.confidence) for cell, own in answers.items()}
    cell, (judged, *_) = next(iter(answers)), shares.values()
    lost = sum(runs(evidence, cell).values())
    speaks_of, files = about(evidence, tokens)
    fewest, most = rule_m.seeds_to_decide(judged)
    more = f" To decide: {fewest} to {'more than ' + str(rule_m.MOST_SEEDS) if most is None else most} seeds."
    said = (
        f"On {evidence.corpus.source}, in {cell}, {outcomes[judged.verdict]}: of {judged.seeds} fresh seeds "
        f"{judged.yes} say yes, {judged.no} no, {judged.open} neither ({lost} diverged); {speaks_of}."
    )
    parts = [
        {
            "name": name,
            "cells": [name],
            "verdict": each.verdict or "not testable",
            **each._asdict(),
            "answers": answers[name],
        }
        for name, each in shares.items()
    ]
    return dataclasses.replace(
        verdict,
        verdict=judged.verdict,
        sentence=said + (more if judged.verdict == rules.UNDECIDED else ""),
        n=judged.seeds,
        files=files,
        about=speaks_of,
        parts=tuple(parts),
        shown=Shown(
            f"{judged.yes} of {judged.seeds}",
            f"seeds say yes, {judged.no} no",
            tuple(
                f"{part['name']}, beside: {part['yes']} yes, {part['no']} no, {part['open']} open."
                for part in parts[1:]
            ),
        ),
    )
