"""What a study of doses asks."""

from eval.judge.evidence import Evidence

TITLE = "How many relations can a head attend to?"


def context(evidence: Evidence, verdicts) -> dict | None:
    return {} if evidence.config.dose.relations else None
