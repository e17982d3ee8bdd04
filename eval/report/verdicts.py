"""The verdicts as the page shows them: a row a claim, and the rows of each forest plot."""

from eval.judge import asides, rules, sentences
from eval.report.facts import Facts, signed
from train.workdir import read_json


def rows(facts: Facts) -> list[dict]:
    """Each claim: id, claim, verdict in words, effect with its interval, sentence, notes, and details to unfold."""
    return [
        {
            **verdict,
            "words": ("exploratory, " if verdict["exploratory"] else "") + verdict["verdict"],
            "number": _number(verdict),
            "unit": _unit(verdict),
            "more": _more(verdict),
        }
        for verdict in facts.verdicts
    ]


def reading(facts: Facts) -> str:
    """On what the choices were made, and how often each verdict was read, against claims.looks."""
    config = facts.record["config"]
    if not config["grid"]["tuning_seeds"]:
        return ""
    said = "Rates, and the best h, were chosen on the tune documents with the tuning seeds. "
    counted = read_json(facts.workdir.looks) or {}
    compared = [verdict for verdict in facts.verdicts if verdict["id"] != "C3" and not verdict["missing"]]
    times = {verdict["id"]: max(1, len(counted.get(verdict["id"], ()))) for verdict in compared}
    exploratory = [verdict["id"] for verdict in compared if verdict["exploratory"]]
    if not compared:
        return said
    if set(times.values()) == {1} and not exploratory:
        said += f"What fresh seeds and test documents say of {' and '.join(times)} was read once. "
    else:
        each = ", ".join(f"{name} {_times(count)}" for name, count in times.items())
        said += f"Readings of verdicts, each with other fresh seeds or another choice to compare: {each}. "
    allowed = config["claims"]["looks"]
    if allowed > 1:
        said += f"claims.looks allows {allowed} readings, so intervals of verdicts are at {100 - 5 / allowed:.4g} %. "
    if exploratory:
        said += f"That is more than claims.looks = {allowed} allows for {' and '.join(exploratory)}: exploratory. "
    return said


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _number(verdict: dict) -> str:
    if verdict["effect"] is None:
        return ""
    if verdict["id"] == "C3":
        return f"× {verdict['effect']:.2f} [{verdict['low']:.2f}, {verdict['high']:.2f}]"
    if verdict["low"] is None:
        return signed(verdict["effect"])
    return f"{signed(verdict['effect'])} [{signed(verdict['low'])}, {signed(verdict['high'])}]"


def _unit(verdict: dict) -> str:
    """The unit of the effect, and which interval stands beside it."""
    if verdict["id"] == "C3":
        return "times the step time of h = 1 on the fast path, 95 % interval over launches"
    named = f", {100 * verdict['confidence']:.4g} % interval, {verdict['about']}"
    return "nats/token" + (named if verdict["low"] is not None else "")


def _more(verdict: dict) -> list[str]:
    """What was computed beside the sentence, in words."""
    details = verdict["details"]
    if verdict["id"] == "C3":
        return [_price(part) for part in verdict["parts"]]
    if "values" not in details:
        return []
    about = verdict["about"]
    said = [f"{part['name']}, {about}: {_ends(part)}, {part['verdict']}." for part in verdict["parts"]]
    for name, found in details["may_be_best"].items():
        if found["cells"]:
            said.append(
                f"{name}: one of {', '.join(found['cells'])} is the best, with {100 * verdict['confidence']:.4g} % "
                f"confidence (Hsu), over {found['seeds']} seeds of which no run diverged."
            )
    for key, words in (("these_documents", "On these documents"), ("new_documents", "For new documents too")):
        if details[key]["low"] is not None:
            said.append(f"{words}: {_ends(details[key])}.")
    if details.get("bootstrap"):
        low, high = details["bootstrap"]
        said.append(
            f"A second opinion that decides nothing, the bootstrap of seeds and files: {signed(low)} to {signed(high)}."
        )
    if details["fixed_heads"]:
        fixed = details["fixed_heads"]
        said.append(
            f"Against h = {asides.FIXED_HEADS}, which no data chose, {about}: {_ends(fixed)}, {fixed['verdict']}."
        )
    for name, depth in details["depth"].items():
        said.append(
            f"{name}, {depth['cells'][0]} less {depth['cells'][1]}, {about}: {_ends(depth)}, {depth['verdict']}."
        )
    if details["shared_rate"]:
        shared = details["shared_rate"]
        said.append(
            f"One shared learning rate, {shared['rate']:g}, for all cells would have said {_ends(shared)}, "
            f"{shared['verdict']} (tune loss of the choosing seeds, t over seeds)."
        )
    if details.get("sign"):
        sign = details["sign"]
        said.append(f"{sign['agree']} of {sign['of']} seeds agree in sign (sign test p = {sign['p_value']:.3f}).")
    if details["correlation"] is not None:
        takes = "what pairing takes out" if details["correlation"] > 0 else "pairing takes nothing out"
        said.append(f"The two sides' losses correlate over seeds by {details['correlation']:.2f}: {takes}.")
    if verdict["verdict"] != rules.UNDECIDED and details.get("seeds_to_decide"):
        words = sentences.seeds_in_words(tuple(details["seeds_to_decide"]), 1)
        said.append(f"A difference as small as the margin would take {words} (80 % power).")
    gain = details.get("margin_in_tokens")
    if gain is not None:
        said.append(
            f"What the margin means: 5 % more tokens lower the training loss by about {gain:.4f} nats/token here."
        )
    return said


def _price(part: dict) -> str:
    """The two ratios of one path, over all d_model or of one."""
    said = [
        f"{part[key]:.2f} [{part[f'{key}_low']:.2f}, {part[f'{key}_high']:.2f}] times the {words}"
        for key, words in (("step_ms", "step time"), ("memory_bytes", "memory"))
    ]
    return f"{part['name']}: {' and '.join(said)}, {part['verdict']}."


def _ends(found: dict) -> str:
    if found.get("effect") is None:
        return "no number"
    if found.get("low") is None:
        return signed(found["effect"])
    return f"{signed(found['effect'])} [{signed(found['low'])}, {signed(found['high'])}]"


def forest(verdict: dict) -> list[dict]:
    """The rows of a claim's forest plot, the deciding one first: label with the interval's name, effect, low, high, and
    `seeds` of the first."""
    details, about = verdict["details"], verdict["about"]
    if verdict["low"] is None or "values" not in details:
        return []
    found = [{"label": f"{about}, decides", **_pick(verdict)}]
    found[0]["seeds"] = list(details["values"].values())
    if len(verdict["parts"]) > 1:
        found += [{"label": _label(part["name"], about), **_pick(part)} for part in verdict["parts"]]
    other = "these_documents" if about == "new documents" else "new_documents"
    found.append({"label": other.replace("_", " "), **_pick(details[other])})
    if details.get("bootstrap"):
        low, high = details["bootstrap"]
        label = "bootstrap of seeds and files"
        found.append({"label": label, "effect": verdict["effect"], "low": low, "high": high})
    if details["fixed_heads"]:
        found.append({"label": _label(f"against h = {asides.FIXED_HEADS}", about), **_pick(details["fixed_heads"])})
    if details["survivors"] and details["survivors"].get("low") is not None:
        found.append({"label": _label("survivors alone", about), **_pick(details["survivors"])})
    if details["shared_rate"]:
        label = f"tune loss at one rate, {details['shared_rate']['rate']:g},\nt over seeds"
        found.append({"label": label, **_pick(details["shared_rate"])})
    return [row for row in found if row["low"] is not None]


def _label(name: str, about: str) -> str:
    """The two with a comma, in two lines where one would be long."""
    return f"{name},{' ' if len(name) < 18 else chr(10)}{about}"


def _pick(found: dict) -> dict:
    return {key: found.get(key) for key in ("effect", "low", "high")}
