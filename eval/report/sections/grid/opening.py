"""What a study of text compares."""

from eval.judge.evidence import Evidence
from eval.report.sections.study import outcome

TITLE = "How many attention heads?"


def context(evidence: Evidence, verdicts) -> dict | None:
    if evidence.corpus is None:
        return None
    states, cells = outcome.states(evidence), evidence.cells
    return {"states": states, "cells": cells, "config": evidence.config, "corpus": evidence.corpus}
