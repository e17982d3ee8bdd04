"""A verdict on a paired difference in words and as the page shows it: its sentence, its notes, what stands beside."""

import math

from eval.judge import intervals, rules, stats
from eval.judge.evidence import Evidence
from eval.judge.paired import asides
from eval.judge.paired.comparison import Comparison
from eval.judge.verdict import Shown, Verdict


def sentence(comparison: Comparison, verdict: Verdict, outcome: str, evidence: Evidence) -> str:
    """The whole sentence of the verdict.

    Args:
      outcome: in words.
    """
    config, details = evidence.config, verdict.details
    by = "" if verdict.verdict == rules.SUPPORTED else f" by {config.claims.margin:g} nats/token or more"
    more = "above" if verdict.effect >= 0 else "below"
    tokens = config.train.steps * config.train.batch_size * config.data.seq_len
    low, high = (signed(value, "-") for value in (verdict.low, verdict.high))
    said = (
        f"On {evidence.corpus.source}, {outcome}{by}: after {tokens:,} tokens the test loss of {comparison.left} lies "
        f"{abs(verdict.effect):.3f} nats/token {more} that of {comparison.right} ({100 * verdict.confidence:.4g} % "
        f"interval {low} to {high}); {verdict.n} fresh seeds, {verdict.about}; "
        f"{asides.divergence(evidence.losses, list(details['diverged']))}."
    )
    if verdict.verdict != rules.UNDECIDED:
        return said
    if details["negative_parts"]:
        return f"{said} More seeds do not settle it, since the sizes of model disagree."
    return f"{said} To decide: {seeds_in_words(details['seeds_to_decide'], verdict.n)}."


def seeds_in_words(plan: tuple[int, int] | None, seeds: int) -> str:
    """'14 to 60 seeds', more than the `seeds` that have not decided it, or that files, not seeds, are short."""
    if plan is None:
        return "no number of seeds would, the documents alone exceed the margin: more files"
    more = [max(count, seeds + 1) for count in plan]
    low, high = (f"{count:,}" if count < stats.MOST_SEEDS else f"more than {count:,}" for count in more)
    return f"{low} to {high} seeds" if low != high else f"{low} seeds"


def notes(comparison: Comparison, verdict: Verdict, evidence: Evidence, own: list[str]) -> list[str]:
    """What a reader must know beside the sentence, the last what other studies found: those that are not cited each
    with the reason.

    Args:
      own: the claim's own notes.
    """
    found, config, details = evidence.losses, evidence.config, verdict.details
    left_out, survivors = comparison.left_out(found.cells), details["survivors"] or {"n": 0, "verdict": ""}
    negative, enough = details["negative_parts"], intervals.ENOUGH_DOCUMENTS
    lost = ", ".join(f"{cell} {count}" for cell, count in details["diverged"].items() if not count.startswith("0 "))
    edge = found.cells.set_index("cell").edge
    edges = ", ".join(f"{cell} ({edge[cell]})" for cell in details["diverged"] if edge[cell])
    said = {
        f"No difference that matters: the {100 - 10 / config.claims.looks:.4g} % interval lies within "
        f"± {config.claims.margin:g} nats/token (two one-sided tests).":
            details["equivalent"] and verdict.verdict != rules.SUPPORTED,
        f"The effect is below 0 (Holm) at {', '.join(negative)}.": negative,
        f"Left out, having nothing to compare: {'; '.join(left_out)}.": left_out,
        **dict.fromkeys(own, True),
        "The source has few files, and the splits are blocks of the same ones: this is about these blocks.":
            not found.apart,
        f"The test files weigh as {verdict.files:.1f} of equal length; {enough} are needed to speak of new documents, "
        f"so this is about these ones.": verdict.files < enough,
        f"With fewer than {asides.SIGN_SEEDS} seeds a skewed effect can make the interval too narrow.":
            verdict.n < asides.SIGN_SEEDS,
        f"Runs diverged, each counted as the unigram entropy, {found.unigram:.3f}: {lost}. On the survivors alone "
        f"(n = {survivors['n']}): {survivors['verdict']}.": lost,
        f"The chosen rate lies at the edge of those tried, so a better one may lie beyond: {edges}.": edges,
    }  # fmt: skip
    said = [each for each, holds in said.items() if holds]
    for arm in evidence.arms:
        fault, theirs = arm.passed_over(verdict.id, evidence.corpus.fingerprint), arm.verdicts.get(verdict.id, {})
        of_it = f": {theirs['verdict']}. {theirs['sentence']}" if not fault else f" is passed over: {fault}"
        said.append(f"Arm {arm.path} ({arm.words}){of_it}{'.' if fault and not fault.endswith('.') else ''}")
    return said


def signed(value: float, minus: str = "−") -> str:
    """Three decimals, or as many as show that a number is not 0."""
    decimals = 3 if not value else max(3, -math.floor(math.log10(2 * abs(value))))
    return f"{value:+.{decimals}f}".replace("-", minus)


def ends(found: dict) -> str:
    """An effect with its interval, as far as there is one."""
    within = "" if found["low"] is None else f" [{signed(found['low'])}, {signed(found['high'])}]"
    return signed(found["effect"]) + within


def shown(verdict: Verdict, more: list[str], title: str, own: dict[str, dict] | None = None) -> Shown:
    """The verdict on the page, with the rows of its forest plot, the deciding one first.

    Args:
      more: what was computed beside the verdicts of the parts, in words.
      title: of the forest plot.
      own: rows of it that are the claim's own, an effect with its ends by label.
    """
    details, about, parts = verdict.details, verdict.about, {part["name"]: part for part in verdict.parts}
    other = "these_documents" if about == "new documents" else "new_documents"
    (low, high), shared = details["bootstrap"], details["shared_rate"] or {"rate": 0.0}
    label = lambda name: f"{name},{' ' if len(name) < 18 else chr(10)}{about}"  # noqa: E731
    named_rows = {
        f"{about}, decides": {**vars(verdict), "seeds": list(details["values"].values())},
        **{label(name): part for name, part in parts.items() if len(parts) > 1},
        other.replace("_", " "): details[other],
        "bootstrap of seeds and files": {"effect": verdict.effect, "low": low, "high": high},
        **{label(name): each for name, each in (own or {}).items()},
        label("survivors alone"): details["survivors"] or {},
        f"tune loss at one rate, {shared['rate']:g},\nt over seeds": shared,
    }
    rows = [
        {"label": name, **{key: each[key] for key in ("effect", "low", "high", "seeds") if key in each}}
        for name, each in named_rows.items()
        if each.get("low") is not None
    ]
    of_parts = [f"{name}, {about}: {ends(part)}, {part['verdict']}." for name, part in parts.items()]
    unit = f"nats/token, {100 * verdict.confidence:.4g} % interval, {about}"
    return Shown(ends(vars(verdict)), unit, (*of_parts, *more), tuple(rows), title)


def of_intervals(verdict: Verdict) -> list[str]:
    """Both intervals, and that of the bootstrap."""
    named = {"On these documents": "these_documents", "For new documents too": "new_documents"}
    beside = {words: verdict.details[key] for words, key in named.items()}
    between = " to ".join(map(signed, verdict.details["bootstrap"]))
    return [
        *(f"{words}: {ends(one)}." for words, one in beside.items() if one["low"] is not None),
        f"A second opinion that decides nothing, the bootstrap of seeds and files: {between}.",
    ]


def of_seeds(verdict: Verdict) -> list[str]:
    """What one rate would have said, and how the seeds agree."""
    said, details = [], verdict.details
    if shared := details["shared_rate"]:
        said.append(
            f"One shared learning rate, {shared['rate']:g}, for all cells would have said {ends(shared)}, "
            f"{shared['verdict']} (tune loss of the choosing seeds, t over seeds)."
        )
    if sign := details.get("sign"):
        said.append(f"{sign['agree']} of {sign['of']} seeds agree in sign (sign test p = {sign['p_value']:.3f}).")
    if (correlation := details["correlation"]) is not None:
        takes = "what pairing takes out" if correlation > 0 else "pairing takes nothing out"
        said.append(f"The two sides' losses correlate over seeds by {correlation:.2f}: {takes}.")
    if verdict.verdict != rules.UNDECIDED and (plan := details.get("seeds_to_decide")):
        words = seeds_in_words(tuple(plan), 1)
        said.append(f"A difference as small as the margin would take {words} (80 % power).")
    return said
