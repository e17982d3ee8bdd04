"""C7: do early heads detect what later ones compose? Asked of induction, which takes two layers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.heads.composition.circuits import DIRECT, RANDOM, TOP
from eval.heads.composition.scores import LATER
from eval.judge import intervals, over_files, rule_m, rules
from eval.judge.evidence import Evidence
from eval.judge.intervals import Interval
from eval.judge.losses import SEED
from eval.judge.single import by_model
from eval.judge.verdict import Shown, Verdict

ID, ROLE = "C7", "induction"
STATEMENT = "Early heads detect what later heads compose"
MARGIN = 0.1  # nats/token by which top sources must outdo random ones
EDGE_MARGIN = 0.01  # from which a single edge is confirmed
ALPHA = 0.05  # of composition
RULE = (
    f"for each seed in which a head above the first layer bears {ROLE}: the loss with the top sources of its heads' "
    f"composition patched by the total path, less that with as many random sources alike in output norm, on test, t "
    f"over files; yes: above {MARGIN:g} nats/token; no: below; {rule_m.RULE}; not testable either if the one-sided "
    f"lower limit, over seeds, of the share of impossible pairs (same layer, reverse order) that pass at {ALPHA:g} "
    f"exceeds it, or with fewer than {intervals.ENOUGH_DOCUMENTS} effective files; the cell is claims.cell, or of the "
    f"largest d_model that of the lowest tune loss with several heads"
)


class Seed(NamedTuple):
    """One seed in which the role is borne above the first layer.

    Attributes:
      top, random: (m,) rise of the loss on each file under either patch, in nats.
      tokens: (m,) tokens of each file.
      impossible: share of impossible pairs that pass.
    """

    top: np.ndarray
    random: np.ndarray
    tokens: np.ndarray
    impossible: float


class Decision(NamedTuple):
    """What the seeds say together.

    Attributes:
      shares: of their answers; None where it is not testable.
      each: every seed's difference in nats/token, with its interval over files.
      why: it is not testable; '' where it is.
    """

    shares: rule_m.Shares | None
    each: tuple[Interval, ...]
    why: str = ""


def decide(seeds: Sequence[Seed], margin: float = MARGIN) -> Decision:
    """The answers of the seeds by RULE."""
    each = tuple(_interval(seed) for seed in seeds)
    if len(seeds) < rule_m.FEWEST_SEEDS:
        return Decision(None, each, f"{rule_m.FEWEST_SEEDS} seeds that bear {ROLE} are the least, and {len(seeds)} do.")
    low = _lower_limit([seed.impossible for seed in seeds])
    if low > ALPHA:
        said = f"Of pairs that cannot compose more than {ALPHA:g} pass (lower limit {low:.3f}): the null does not hold."
        return Decision(None, each, said)
    files = min(intervals.effective_documents(seed.tokens) for seed in seeds)
    if files < intervals.ENOUGH_DOCUMENTS:
        least = f"{intervals.ENOUGH_DOCUMENTS} effective files are the least"
        return Decision(None, each, f"{least}, and a seed was patched on {files:.0f}.")
    return Decision(rule_m.decide([_answer(found, margin) for found in each]), each)


def _answer(found: Interval, margin: float = MARGIN) -> str:
    return rule_m.answer(found.low, found.high, margin)


def _interval(seed: Seed) -> Interval:
    """Of the difference in nats/token, 95 % over files."""
    if len(seed.tokens) < 2:
        return Interval(float(np.sum(seed.top - seed.random) / np.sum(seed.tokens)), math.nan, math.nan)
    found = over_files.per_token(seed.top - seed.random, seed.tokens)
    return Interval(*map(float, (found.mean, found.low(0.025), found.high(0.025), found.error)))


def _lower_limit(shares: list[float]) -> float:
    """One-sided, at rule_m.CONFIDENCE, of the mean over seeds."""
    return intervals.over_seeds(np.array(shares), 2 * rule_m.CONFIDENCE - 1).low


def applies(evidence: Evidence) -> str:
    if evidence.config.dose.relations:
        return "A study of doses has no corpus on which heads were patched."
    if evidence.cells.empty:
        return "No judged run is evaluated yet."
    if by_model.rows(evidence, "patching").empty:
        return "Heads were not patched: --mode=eval --measure=patching does it."
    return ""


def judge(evidence: Evidence) -> Verdict:
    """The verdict of the cell that answers; the others are its parts."""
    base = Verdict(ID, STATEMENT, rules.UNDECIDED, "", RULE, MARGIN, rule_m.CONFIDENCE)
    patched, composed = by_model.rows(evidence, "patching"), by_model.rows(evidence, "composition")
    cells, answering = evidence.losses.cells, by_model.primary(evidence)
    parts = tuple(_part(evidence, cell, patched, composed) for cell in cells[cells.num_layers > 1].itertuples())
    part = next((part for part in parts if part["name"] == answering and part["num_heads"] > 1), None)
    lacks = {
        by_model.CROSSED: evidence.config.grid.seeds == "crossed",
        f"{answering} has no two layers of several heads: one head has no random source, and one layer none at all.":
            part is None,
    }  # fmt: skip
    if said := [sentence for sentence, holds in lacks.items() if holds]:
        return dataclasses.replace(base, sentence=" ".join(said), missing=tuple(said), parts=parts)
    lacks = (part["why"],) if part["why"] else ()
    return dataclasses.replace(
        base,
        verdict=part["verdict"],
        sentence=_sentence(evidence, part),
        **{name: part[name] for name in ("effect", "low", "high", "n", "files")},
        missing=lacks,
        parts=parts,
        details={"role": ROLE, "cell": answering},
        shown=_shown(part, parts),
    )


def look(evidence: Evidence) -> dict | None:
    return None if judge(evidence).missing else by_model.look(evidence)


def seeds_of(patched: pd.DataFrame, composed: pd.DataFrame) -> dict[tuple, Seed]:
    """By (init seed, data seed) the seeds of one cell that bear ROLE above the first layer and have random sources."""
    found = {}
    rows = patched[(patched.role == ROLE) & patched.decides.astype(bool)]
    for key, mine in rows.groupby(SEED):
        sums = mine.pivot_table(index="document", columns="what", values="rise", aggfunc="sum")
        if {TOP, RANDOM} <= {*sums}:
            tokens = mine[mine.what == TOP].set_index("document").tokens.loc[sums.index]
            own = composed[(composed[SEED] == list(key)).all(axis=1) & (composed.place != LATER)].p.dropna()
            columns = (sums[name].to_numpy(float) for name in (TOP, RANDOM))
            found[key] = Seed(*columns, tokens.to_numpy(float), float((own < ALPHA).mean()) if len(own) else 0.0)
    return found


def _part(evidence: Evidence, cell, patched: pd.DataFrame, composed: pd.DataFrame) -> dict:
    """What one cell says, in numbers."""
    patched, composed = (rows[rows.cell == cell.cell] for rows in (patched, composed))
    seeds = seeds_of(patched, composed)
    decision = decide(list(seeds.values()))
    means = np.array([each.mean for each in decision.each])
    over = intervals.over_seeds(means) if len(means) else Interval(math.nan, math.nan, math.nan)
    shares = decision.shares
    of_role = patched[patched.role == ROLE]
    mean = lambda rows: rows.rise.sum() / rows.tokens.sum() if len(rows) else math.nan  # noqa: E731
    later = composed[composed.place == LATER].p.dropna()
    return {
        "name": cell.cell,
        "num_heads": int(cell.num_heads),
        "runs": evidence.losses.count(cell.cell),
        "learnt": int(of_role.groupby(SEED).ngroups) if len(of_role) else 0,
        "n": len(seeds),
        "files": min((intervals.effective_documents(seed.tokens) for seed in seeds.values()), default=None),
        "verdict": (shares and shares.verdict) or rules.UNDECIDED,
        "why": decision.why,
        "answers": [_answer(each) for each in decision.each],
        "effect": _number(over.mean),
        "low": _number(over.low),
        "high": _number(over.high),
        "seeds": [float(value) for value in means],
        "top": _number(mean(of_role[of_role.decides.astype(bool) & (of_role.what == TOP)])),
        "random": _number(mean(of_role[of_role.decides.astype(bool) & (of_role.what == RANDOM)])),
        "direct": _number(mean(of_role[of_role.what == DIRECT])),
        "inputs": sorted(set(of_role[of_role.decides.astype(bool)].kind)),
        "pass": _number((later < ALPHA).mean() if len(later) else math.nan),
        "impossible": _number(np.mean([seed.impossible for seed in seeds.values()]) if seeds else math.nan),
    }


def _number(value: float) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _sentence(evidence: Evidence, part: dict) -> str:
    said = (
        f"On {evidence.corpus.source}: {'not testable. A' if part['why'] else 'a'} head above the first layer bears "
        f"{ROLE} in {part['learnt']} of {part['runs']} runs of {part['name']}. {part['why']}"
    ).strip()
    if not part["n"]:
        return said
    yes, no, left = (part["answers"].count(each) for each in (rule_m.YES, rule_m.NO, rule_m.OPEN))
    return (
        f"{said} By patching, {yes} of {part['n']} lose at least {MARGIN:g} nats/token more without what the top "
        f"sources write than without that of random ones alike, {no} less, {left} are open: in the mean "
        f"{part['top']:.3f} against {part['random']:.3f} nats/token, by the direct path alone {part['direct']:.3f}."
    )


def _shown(part: dict, parts: tuple[dict, ...]) -> Shown:
    tested = [part, *(each for each in parts if each["name"] != part["name"])]
    rows = tuple(
        {"label": each["name"], **{name: each[name] for name in ("effect", "low", "high")}}
        | ({"seeds": each["seeds"]} if each is part else {})
        for each in tested
        if each["low"] is not None
    )
    more = tuple(
        f"{each['name']}: {each['learnt']} of {each['runs']} runs bear {ROLE} above the first layer"
        + (f", read by {', '.join(each['inputs'])}" if each["inputs"] else "")
        + (f"; of possible edges {each['pass']:.1%} pass at {ALPHA:g}" if each["pass"] is not None else "")
        + (f", of impossible ones {each['impossible']:.1%}" if each["impossible"] is not None else "")
        + "."
        for each in parts
    )
    title = "loss with top sources patched, less that with random ones"
    if part["low"] is None:
        return Shown(more=more)
    number = f"{part['effect']:.3f} ({part['low']:.3f} to {part['high']:.3f})"
    return Shown(number, f"nats/token, over {part['n']} seeds", more, rows, title)
