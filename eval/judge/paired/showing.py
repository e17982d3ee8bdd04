"""A verdict on a paired difference as the page shows it: numbers, what stands beside, the rows of a forest plot."""

from eval.judge import rules
from eval.judge.paired import sentences
from eval.judge.verdict import Verdict


def signed(value: float) -> str:
    return sentences.signed(value).replace("-", "−")


def ends(found: dict) -> str:
    """An effect with its interval, as far as there are such."""
    if found.get("effect") is None:
        return "no number"
    if found.get("low") is None:
        return signed(found["effect"])
    return f"{signed(found['effect'])} [{signed(found['low'])}, {signed(found['high'])}]"


def unit(verdict: Verdict) -> str:
    """The unit of the effect, and which interval stands beside it."""
    named = f", {100 * verdict.confidence:.4g} % interval, {verdict.about}"
    return "nats/token" + (named if verdict.low is not None else "")


def of_parts(verdict: Verdict) -> list[str]:
    return [f"{part['name']}, {verdict.about}: {ends(part)}, {part['verdict']}." for part in verdict.parts]


def of_intervals(verdict: Verdict) -> list[str]:
    """Both intervals, and that of the bootstrap."""
    details, named = (
        verdict.details,
        {"these_documents": "On these documents", "new_documents": "For new documents too"},
    )
    said = [f"{words}: {ends(details[key])}." for key, words in named.items() if details[key]["low"] is not None]
    if details.get("bootstrap"):
        low, high = details["bootstrap"]
        said.append(
            f"A second opinion that decides nothing, the bootstrap of seeds and files: {signed(low)} to {signed(high)}."
        )
    return said


def of_seeds(verdict: Verdict) -> list[str]:
    """What one rate would have said, and how the seeds agree."""
    said, details = [], verdict.details
    if details["shared_rate"]:
        shared = details["shared_rate"]
        said.append(
            f"One shared learning rate, {shared['rate']:g}, for all cells would have said {ends(shared)}, "
            f"{shared['verdict']} (tune loss of the choosing seeds, t over seeds)."
        )
    if details.get("sign"):
        sign = details["sign"]
        said.append(f"{sign['agree']} of {sign['of']} seeds agree in sign (sign test p = {sign['p_value']:.3f}).")
    if details["correlation"] is not None:
        takes = "what pairing takes out" if details["correlation"] > 0 else "pairing takes nothing out"
        said.append(f"The two sides' losses correlate over seeds by {details['correlation']:.2f}: {takes}.")
    if verdict.verdict != rules.UNDECIDED and details.get("seeds_to_decide"):
        words = sentences.seeds_in_words(tuple(details["seeds_to_decide"]), 1)
        said.append(f"A difference as small as the margin would take {words} (80 % power).")
    return said


def rows(verdict: Verdict, own: dict[str, dict] | None = None) -> tuple[dict, ...]:
    """The rows of the verdict's forest plot, the deciding one first; empty where it has no interval.

    Args:
      own: the claim's own, an effect with its ends by label.
    """
    if verdict.low is None:
        return ()
    details, about = verdict.details, verdict.about
    found = {f"{about}, decides": {**vars(verdict), "seeds": list(details["values"].values())}}
    if len(verdict.parts) > 1:
        found |= {_label(part["name"], about): part for part in verdict.parts}
    other = "these_documents" if about == "new documents" else "new_documents"
    found[other.replace("_", " ")] = details[other]
    if details.get("bootstrap"):
        low, high = details["bootstrap"]
        found["bootstrap of seeds and files"] = {"effect": verdict.effect, "low": low, "high": high}
    found |= {_label(name, about): each for name, each in (own or {}).items()}
    if details["survivors"]:
        found[_label("survivors alone", about)] = details["survivors"]
    if details["shared_rate"]:
        label = f"tune loss at one rate, {details['shared_rate']['rate']:g},\nt over seeds"
        found[label] = details["shared_rate"]
    picked = ("effect", "low", "high", "seeds")
    return tuple(
        {"label": label, **{name: each[name] for name in picked if name in each}}
        for label, each in found.items()
        if each.get("low") is not None
    )


def _label(name: str, about: str) -> str:
    """The two with a comma, in two lines where one would be long."""
    return f"{name},{' ' if len(name) < 18 else chr(10)}{about}"
