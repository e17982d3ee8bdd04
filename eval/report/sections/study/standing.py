"""What to make of the verdicts on a study of text: how often they were read, and whether the cells are any good."""

from eval.judge.evidence import Evidence
from eval.judge.paired import decision
from eval.judge.verdict import Verdict
from eval.report.sections.study import outcome
from train.workdir import read_json


def context(evidence: Evidence, verdicts: list[Verdict]) -> dict | None:
    said = {"reading": reading(evidence, verdicts), "prospect": decision.prospect(evidence.config)}
    return {**said, **outcome.context(evidence, verdicts)} if evidence.corpus else None


def reading(evidence: Evidence, verdicts: list[Verdict]) -> str:
    """On what the choices were made, and how often each verdict was read, against claims.looks."""
    if not evidence.config.grid.tuning_seeds:
        return ""
    said = "Rates, and the best h, were chosen on the tune documents with the tuning seeds. "
    looks, allowed = read_json(evidence.workdir.looks) or {}, evidence.config.claims.looks
    compared = [verdict for verdict in verdicts if verdict.id in looks and not verdict.missing]
    times = {verdict.id: max(1, len(looks[verdict.id])) for verdict in compared}
    exploratory = [verdict.id for verdict in compared if verdict.exploratory]
    if not compared:
        return said
    if set(times.values()) == {1} and not exploratory:
        said += f"What fresh seeds and test documents say of {' and '.join(times)} was read once. "
    else:
        each = ", ".join(f"{name} {'once' if count == 1 else f'{count} times'}" for name, count in times.items())
        said += f"Readings of verdicts, each with other fresh seeds or another choice to compare: {each}. "
    if allowed > 1:
        said += f"claims.looks allows {allowed} readings, so intervals of verdicts are at {100 - 5 / allowed:.4g} %. "
    if exploratory:
        said += f"That is more than claims.looks = {allowed} allows for {' and '.join(exploratory)}: exploratory. "
    return said
