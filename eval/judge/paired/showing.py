"""A verdict on a paired difference as the page shows it: numbers, what stands beside, the rows of a forest plot."""

from eval.judge import rules
from eval.judge.paired import sentences
from eval.judge.verdict import Shown, Verdict


def signed(value: float) -> str:
    return sentences.signed(value).replace("-", "−")


def ends(found: dict) -> str:
    """An effect with its interval, as far as there are such."""
    if found.get("effect") is None:
        return "no number"
    if found.get("low") is None:
        return signed(found["effect"])
    return f"{signed(found['effect'])} [{signed(found['low'])}, {signed(found['high'])}]"


def shown(verdict: Verdict, more: list[str], title: str, own: dict[str, dict] | None = None) -> Shown:
    """The verdict on the page.

    Args:
      more: what was computed beside the verdicts of the parts, in words.
      title: of the forest plot.
      own: rows of it that are the claim's own, an effect with its ends by label.
    """
    named = f", {100 * verdict.confidence:.4g} % interval, {verdict.about}" if verdict.low is not None else ""
    parts = [f"{part['name']}, {verdict.about}: {ends(part)}, {part['verdict']}." for part in verdict.parts]
    return Shown(ends(vars(verdict)), f"nats/token{named}", (*parts, *more), _rows(verdict, own or {}), title)


def of_intervals(verdict: Verdict) -> list[str]:
    """Both intervals, and that of the bootstrap."""
    named = {"On these documents": "these_documents", "For new documents too": "new_documents"}
    found = {words: verdict.details[key] for words, key in named.items()}
    said = [f"{words}: {ends(one)}." for words, one in found.items() if one["low"] is not None]
    if verdict.details.get("bootstrap"):
        between = " to ".join(map(signed, verdict.details["bootstrap"]))
        said.append(f"A second opinion that decides nothing, the bootstrap of seeds and files: {between}.")
    return said


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
        words = sentences.seeds_in_words(tuple(plan), 1)
        said.append(f"A difference as small as the margin would take {words} (80 % power).")
    return said


def _rows(verdict: Verdict, own: dict[str, dict]) -> tuple[dict, ...]:
    """The rows of the verdict's forest plot, the deciding one first; empty where it has no interval."""
    if verdict.low is None:
        return ()
    details, about = verdict.details, verdict.about
    label = lambda name: f"{name},{' ' if len(name) < 18 else chr(10)}{about}"  # noqa: E731
    found = {f"{about}, decides": {**vars(verdict), "seeds": list(details["values"].values())}}
    if len(verdict.parts) > 1:
        found |= {label(part["name"]): part for part in verdict.parts}
    other = "these_documents" if about == "new documents" else "new_documents"
    found[other.replace("_", " ")] = details[other]
    if details.get("bootstrap"):
        low, high = details["bootstrap"]
        found["bootstrap of seeds and files"] = {"effect": verdict.effect, "low": low, "high": high}
    found |= {label(name): each for name, each in own.items()} | {label("survivors alone"): details["survivors"] or {}}
    if shared := details["shared_rate"]:
        found[f"tune loss at one rate, {shared['rate']:g},\nt over seeds"] = shared
    picked = ("effect", "low", "high", "seeds")
    return tuple(
        {"label": name, **{key: each[key] for key in picked if key in each}}
        for name, each in found.items()
        if each.get("low") is not None
    )
