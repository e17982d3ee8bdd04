"""C4 from the runs of a workdir: T of every cell and dose, as a table, and the two verdicts."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.judge import dose_rules, dose_secondary
from eval.judge.claims import Verdict
from eval.judge.dose_secondary import FEW, MANY, MANY_HEADS, ONE_HEAD, Secondary
from train.config import StudyConfig
from train.files import write_json
from train.run import starts
from train.workdir import Workdir

CLAIMS = {
    "C4a": "One head learns many relations slower",
    "C4b": "One head cannot hold many relations",
}
RULES = {
    "C4a": "controls first: 8 heads reach the threshold at 6 relations in every seed, and the interval of G(1) lies "
    "inside +-ln 2; supported: lower limits of G(6) - G(1) above 0 and of G(6) above ln 1.5; refuted: upper limit of "
    "G(6) below ln 1.5; G(r) = ln T(1, r) - ln T(8, r), paired by seed",
    "C4b": "controls as for C4a, and a cap of at least 10 times the median T(8, 6); refuted: upper limit of y(1, 6) at "
    "most .05, or the hand-built start holds; supported: lower limit above .05 and the hand-built start does not hold; "
    "hand-built runs train at a tenth of the smallest rate tried, which was set after trying higher ones",
}


def asks_for_hand_built(dose: int, losses: list[float], config: StudyConfig) -> bool:
    """Whether C4b's rule wants runs of one head from weights by hand, given the losses of its fresh runs at a dose."""
    low = dose_rules.intervals.over_seeds(np.array(losses), 1 - 0.05 / config.claims.looks).low
    return dose == MANY and low > dose_rules.THRESHOLD


def write_verdicts(
    workdir: Workdir, table: pd.DataFrame, config: StudyConfig, beside: Sequence[Secondary] = ()
) -> list[Verdict]:
    """Writes results/claims.json and returns C4a and C4b."""
    found = judge(table, config, beside)
    write_json(workdir.results / "claims.json", [dataclasses.asdict(verdict) for verdict in found])
    return found


def judge(table: pd.DataFrame, config: StudyConfig, beside: Sequence[Secondary] = ()) -> list[Verdict]:
    """C4a and C4b from the table of runs, of its shallowest models; C4a's notes have the secondary cells `beside`."""
    confidence = 1 - 0.05 / config.claims.looks
    fresh = dose_secondary.fresh_runs(table)
    fresh = fresh[fresh.num_layers == fresh.num_layers.min()] if len(fresh) else fresh
    if of_kinds(config):
        why = f"The kinds {config.data.relations} are no dose of family P, which the claim speaks of."
        return _not_judged(why, confidence)
    if config.train.schedule != "constant":
        return _not_judged(
            f"Under train.schedule={config.train.schedule} the steps that are needed depend on the cap.", confidence
        )
    missing = dose_secondary.missing(fresh)
    one_layer = fresh.empty or fresh.num_layers.iloc[0] == 1
    primary = one_layer and config.data.demand == "joint" and config.data.sources == "exchangeable"
    secondary = () if primary else ("A secondary cell: the claim is judged at one layer, joint, exchangeable.",)
    if missing:
        return _not_judged(f"No fresh run of {', '.join(missing)}.", confidence)

    runs = {
        (heads, dose): dose_secondary.steps_of(fresh, heads, dose)
        for heads in (ONE_HEAD, MANY_HEADS)
        for dose in (FEW, MANY)
    }
    one_few, many_few = runs[ONE_HEAD, FEW], runs[MANY_HEADS, FEW]
    one_many, many_many = runs[ONE_HEAD, MANY], runs[MANY_HEADS, MANY]
    slower = dose_rules.slower(one_few, many_few, one_many, many_many, confidence)
    controls = dose_rules.controls_hold(one_few, many_few, many_many, confidence)
    last = fresh[(fresh.num_heads == ONE_HEAD) & (fresh.relations == MANY)].sort_values("seed").loss.to_numpy(float)
    cap = config.train.steps
    kept = table[(table.stage == starts.HAND_BUILT) & (table.num_heads == ONE_HEAD) & (table.relations == MANY)]
    kept = kept[kept.num_layers == fresh.num_layers.min()]
    hand_rate, kept = kept.learning_rate.min(), kept.worst.to_numpy(float)
    cannot = dose_rules.cannot(last, many_many, cap, controls, kept if len(kept) else None, confidence)
    medians = {key: float(np.median(each.steps)) for key, each in runs.items()}
    details = {
        "median_steps": {f"h{heads}_r{dose}": value for (heads, dose), value in medians.items()},
        "capped": {f"h{heads}_r{dose}": int((~each.reached).sum()) for (heads, dose), each in runs.items()},
    }
    gap, growth = slower.gap, slower.growth
    ratio = (
        f"With {MANY} relations one head takes {_times(gap)} the steps of {MANY_HEADS} heads, with {FEW} relation "
        f"{_times(dose_rules.intervals.over_seeds(dose_rules.gap(one_few, many_few), confidence))} "
        f"(medians {medians[ONE_HEAD, MANY]:,.0f} and {medians[MANY_HEADS, MANY]:,.0f}; {medians[ONE_HEAD, FEW]:,.0f} "
        f"and {medians[MANY_HEADS, FEW]:,.0f}; {len(last)} fresh seeds, capped at {cap:,})."
    )
    left = cannot.gap
    held = (
        f"At its stop with {MANY} relations one head leaves {left.mean:.3f} nats a bit ({confidence:g} interval "
        f"{left.low:.3f} to {left.high:.3f}); the threshold is {config.dose.threshold:g}."
    )
    if len(kept):
        held += (
            f" From weights by hand that tell all {2**MANY} answers apart, trained at a rate of {hand_rate:g}, "
            f"{(kept <= dose_rules.THRESHOLD).sum()} of {len(kept)} runs stay below it at every look up to the cap (of "
            f"all looks the largest: {kept.max():.3f})."
        )
    spoken = dose_secondary.language(config.data.demand, config.data.sources)
    alike = [cell.runs for cell in beside if cell.language == spoken and not cell.mlp_first]  # of other depths
    fitted = dose_secondary.slopes([dose_secondary.fresh_runs(table), *alike], confidence)
    others = dose_secondary.corrected(list(beside), confidence)
    more = (*secondary, *_of_slopes(fitted), *_of_secondary(others))
    return [
        _verdict("C4a", slower, gap, f"{ratio}{_growth(growth)}", len(last), confidence, more, details),
        _verdict("C4b", cannot, left, held, len(last), confidence, secondary, details),
    ]


def _of_slopes(fitted) -> tuple[str, ...]:
    if fitted is None:
        return ()
    rise, fall, both = (
        f"{fitted[name].mean:+.2f} ({fitted[name].low:+.2f} to {fitted[name].high:+.2f})"
        for name in ("relations", "heads_layers", "sum")
    )
    return (
        f"T goes with the relations to the power {rise} and with heads x layers to the power {fall}, capped runs "
        f"counted at the cap; where relations a head were all that matters the two would add up to 0, and they add up "
        f"to {both}.",
    )


def _of_secondary(cells: list[dose_secondary.Corrected]) -> tuple[str, ...]:
    said = []
    for cell in cells:
        sentence = (
            f"Secondary, {cell.words}: with {MANY} relations one head takes {_times(cell.judged.gap)} the steps of "
            f"{MANY_HEADS} heads"
        )
        if math.isnan(cell.p_value):
            said.append(f"{sentence}; {cell.judged.why}.")
        else:
            held = "supported" if cell.holds else "not supported"
            said.append(f"{sentence}; slower the more relations there are: {held} under Holm (p = {cell.p_value:.2g}).")
    return tuple(said)


def of_kinds(config: StudyConfig) -> bool:
    """Whether the study is of family K."""
    return any(letter.isalpha() for letter in config.data.relations)


def _not_judged(why: str, confidence: float) -> list[Verdict]:
    return [
        Verdict(name, CLAIMS[name], "undecided", f"Not judged: {why}", RULES[name], 0.0, confidence, missing=(why,))
        for name in CLAIMS
    ]


def _verdict(name, judged, interval, sentence, n, confidence, notes, details) -> Verdict:
    why = f"{judged.why[0].upper()}{judged.why[1:]}. " if judged.why else ""
    return Verdict(
        name,
        CLAIMS[name],
        judged.verdict,
        why + sentence,
        RULES[name],
        0.0,
        confidence,
        _number(interval.mean),
        _number(interval.low),
        _number(interval.high),
        n,
        notes=notes,
        details=details,
    )


def _growth(growth) -> str:
    return f" From the one to the other the ratio becomes {_times(growth)} as large."


def _times(interval) -> str:
    """An interval of logarithms as a factor."""
    low, mean, high = (math.exp(value) for value in (interval.low, interval.mean, interval.high))
    return f"{mean:.2f} times ({low:.2f} to {high:.2f})"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
