"""All verdicts of a study, from the files in eval/judge/claims.

A claim's file has ID, STATEMENT, RULE, applies(evidence) ('' or why it is not judged here) and judge(evidence). It may
have more: look(evidence), what a reading of its verdict looks at, so that readings are counted; cells_to_price
(evidence), the cells whose steps it wants timed; further(evidence), the runs that its rule asks for; recoveries
(evidence), those of them that go on from others without some heads.
"""

import dataclasses

from eval import walk
from eval.judge import claims
from eval.judge.evidence import Evidence
from eval.judge.verdict import Verdict
from train.files import write_json
from train.workdir import read_json

AGAIN = "Exploratory, since a verdict was read before with other seeds or another choice: "


def applying(evidence: Evidence) -> list:
    """The claims that are judged here, by ID."""
    return sorted((each for each in walk.modules(claims) if not each.applies(evidence)), key=lambda each: each.ID)


def cells_to_price(evidence: Evidence) -> tuple[str, ...]:
    """The cells whose steps some claim wants timed."""
    return tuple(dict.fromkeys(_asked(evidence, "cells_to_price")))


def further(evidence: Evidence) -> list[tuple[str, int]]:
    """The (cell, dose) of runs from weights by hand that some claim's rule wants, given the runs that there are."""
    return list(dict.fromkeys(_asked(evidence, "further")))


def recoveries(evidence: Evidence) -> list[tuple]:
    """The (cell, replica, heads that it lacks) of runs that go on from others and that some claim's rule wants now."""
    return _asked(evidence, "recoveries")


def _asked(evidence: Evidence, hook: str) -> list:
    asking = [getattr(claim, hook) for claim in applying(evidence) if hasattr(claim, hook)]
    return [one for ask in asking for one in ask(evidence)]


def write(evidence: Evidence) -> list[Verdict]:
    """Judges every claim that applies, writes results/claims.json and returns the verdicts. Every reading of a claim's
    verdict is counted that is with other seeds or another choice of cells or rates to compare, this one once nothing
    is missing."""
    applied, read, verdicts = applying(evidence), read_json(evidence.workdir.looks) or {}, []
    for claim in [claim for claim in applied if hasattr(claim, "look")]:
        look, earlier = claim.look(evidence), read.setdefault(claim.ID, [])
        earlier += [look] if look is not None and look not in earlier else []
    if any(read.values()):
        write_json(evidence.workdir.looks, read)
    for claim in applied:
        verdict = claim.judge(evidence)
        if max(1, len(read.get(claim.ID, ()))) > evidence.config.claims.looks:
            sentence = verdict.sentence if verdict.missing else AGAIN + verdict.sentence
            verdict = dataclasses.replace(verdict, exploratory=True, sentence=sentence)
        verdicts.append(verdict)
    if verdicts:
        write_json(evidence.workdir.results / "claims.json", [verdict.record() for verdict in verdicts])
    return verdicts
