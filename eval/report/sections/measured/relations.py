"""Test loss above its floor on each relation of a language whose every choice has a known probability."""

from eval.judge.evidence import Evidence
from eval.measure import relations

TABLES = ("relations",)


def context(evidence: Evidence, verdicts) -> dict | None:
    found = relations.excess(evidence.workdir, evidence.cells)
    return None if found.empty else {"relations": found.T}
