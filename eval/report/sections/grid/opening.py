"""What a study of text compares."""

from eval.judge.evidence import Evidence
from eval.report.sections.study import outcome

TITLE = "How many attention heads?"


def context(evidence: Evidence, verdicts) -> dict | None:
    return {"states": outcome.states(evidence)} if evidence.corpus else None
