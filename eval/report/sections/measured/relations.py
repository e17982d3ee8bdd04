"""Test loss above its floor on each relation of a language whose every choice has a known probability."""

from eval import tables
from eval.judge.evidence import Evidence

TABLES = ("relations",)


def context(evidence: Evidence, verdicts) -> dict | None:
    losses = tables.excess(evidence.workdir, evidence.cells)
    return None if losses.empty else {"relations": losses.T}
