"""A verdict on a paired difference in words: its sentence and its notes."""

import math

from eval.judge import intervals, rules, stats
from eval.judge.evidence import Evidence
from eval.judge.paired import asides
from eval.judge.paired.comparison import Comparison
from eval.judge.verdict import Verdict


def sentence(
    comparison: Comparison, verdict: Verdict, judged: rules.Judged, diverged: str, outcome: str, evidence: Evidence
) -> str:
    """The whole sentence of the verdict.

    Args:
      diverged: asides.divergence of the cells compared.
      outcome: in words.
    """
    config = evidence.config
    by = "" if verdict.verdict == rules.SUPPORTED else f" by {config.claims.margin:g} nats/token or more"
    more = "above" if verdict.effect >= 0 else "below"
    tokens = config.train.steps * config.train.batch_size * config.data.seq_len
    ends = f"{100 * verdict.confidence:.4g} % interval {signed(verdict.low)} to {signed(verdict.high)}"
    said = (
        f"On {evidence.corpus.source}, {outcome}{by}: after {tokens:,} tokens the test loss of {comparison.left} lies "
        f"{abs(verdict.effect):.3f} nats/token {more} that of {comparison.right} ({ends}); {verdict.n} fresh "
        f"seeds, {verdict.about}; {diverged}."
    )
    if verdict.verdict != rules.UNDECIDED:
        return said
    if judged.negative:
        return f"{said} More seeds do not settle it, since the sizes of model disagree."
    return f"{said} To decide: {seeds_in_words(verdict.details.get('seeds_to_decide'), verdict.n)}."


def seeds_in_words(plan: tuple[int, int] | None, seeds: int) -> str:
    """'14 to 60 seeds', more than the `seeds` that have not decided it, or that files, not seeds, are short."""
    if plan is None:
        return "no number of seeds would, the documents alone exceed the margin: more files"
    more = [max(count, seeds + 1) for count in plan]
    low, high = (f"{count:,}" if count < stats.MOST_SEEDS else f"more than {count:,}" for count in more)
    return f"{low} to {high} seeds" if low != high else f"{low} seeds"


def notes(
    comparison: Comparison, verdict: Verdict, evidence: Evidence, judged: rules.Judged, chosen: dict, own: list[str]
) -> list[str]:
    """What a reader must know beside the sentence.

    Args:
      chosen: the two cells of each group.
      own: the claim's own notes.
    """
    found, config = evidence.losses, evidence.config
    said, details = [], verdict.details
    if details.get("equivalent") and judged.verdict != rules.SUPPORTED:
        said.append(
            f"No difference that matters: the {100 - 10 / config.claims.looks:.4g} % interval lies within "
            f"± {config.claims.margin:g} nats/token (two one-sided tests)."
        )
    if judged.negative:
        said.append(f"The effect is below 0 (Holm) at {', '.join(judged.negative)}.")
    if left_out := comparison.left_out(found.cells):
        said.append(f"Left out, having nothing to compare: {'; '.join(left_out)}.")
    said += own
    if not found.apart:
        said.append("The source has few files, and the splits are blocks of the same ones: this is about these blocks.")
    if judged.files < intervals.ENOUGH_DOCUMENTS:
        said.append(
            f"The test files weigh as {judged.files:.1f} of equal length; {intervals.ENOUGH_DOCUMENTS} are needed to "
            f"speak of new documents, so this is about these ones."
        )
    if len(details["values"]) < asides.SIGN_SEEDS:
        said.append(f"With fewer than {asides.SIGN_SEEDS} seeds a skewed effect can make the interval too narrow.")
    if survivors := details["survivors"]:
        lost = {cell: count for cell, count in details["diverged"].items() if not count.startswith("0 ")}
        rates = ", ".join(f"{cell} {count}" for cell, count in lost.items())
        said.append(
            f"Runs diverged, each counted as the unigram entropy, {found.unigram:.3f}: {rates}. On the survivors alone "
            f"(n = {survivors['n']}): {survivors['verdict']}."
        )
    edge = found.cells.set_index("cell").edge
    edges = [f"{cell} ({edge[cell]})" for pair in chosen.values() for cell in pair if edge[cell]]
    if edges:
        said.append(
            f"The chosen rate lies at the edge of those tried, so a better one may lie beyond: {', '.join(edges)}."
        )
    return said


def of_arms(claim: str, evidence: Evidence) -> list[str]:
    """What other studies found on the claim of this ID, those that are not cited each with the reason."""
    said = []
    for arm in evidence.arms:
        fault, theirs = arm.passed_over(claim, evidence.corpus.fingerprint), arm.verdicts.get(claim, {})
        found = f": {theirs['verdict']}. {theirs['sentence']}" if not fault else f" is passed over: {fault}"
        said.append(f"Arm {arm.path} ({arm.words}){found}{'.' if fault and not fault.endswith('.') else ''}")
    return said


def signed(value: float) -> str:
    """Three decimals, or as many as show that a number is not 0."""
    decimals = 3 if not value else max(3, -math.floor(math.log10(2 * abs(value))))
    return f"{value:+.{decimals}f}"
