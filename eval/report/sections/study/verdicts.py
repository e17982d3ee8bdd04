"""Every claim's verdict: effect with its interval, sentence, notes, forest plot, and details to unfold."""

from eval.report import figures as plots
from eval.report.style import Drawn


def context(evidence, verdicts) -> dict | None:
    return {} if verdicts else None


def figures(evidence, verdicts) -> dict[str, Drawn]:
    return {
        f"forest_{verdict.id}": Drawn(
            plots.forest(verdict.shown.rows, verdict.margin, f"{verdict.id}: {verdict.shown.title}"),
            f"{verdict.claim}: effects and intervals.",
        )
        for verdict in verdicts
        if verdict.shown.rows
    }
