"""C4a: does one head learn many relations slower than eight?"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from eval.judge import intervals, rules, stats, steps
from eval.judge.arms import Arm, mlp_first
from eval.judge.evidence import Evidence
from eval.judge.steps import FEW, MANY, MANY_HEADS, Decision, Steps
from eval.judge.verdict import Verdict

ID = "C4a"
STATEMENT = "One head learns many relations slower"
RULE = (
    "controls first: 8 heads reach the threshold at 6 relations in every seed, and the interval of G(1) lies inside "
    "+-ln 2; supported: lower limits of G(6) - G(1) above 0 and of G(6) above ln 1.5; refuted: upper limit of G(6) "
    "below ln 1.5; G(r) = ln T(1, r) - ln T(8, r), paired by seed"
)
SLOWER = math.log(1.5)  # a gap at six relations that matters
applies = steps.applies


def slower(
    one_head_1: Steps, many_heads_1: Steps, one_head_6: Steps, many_heads_6: Steps, confidence: float = 0.95
) -> Decision:
    """`supported`: the lower limits of G(6) - G(1) above 0 and of G(6) above SLOWER; `refuted`: the upper limit of G(6)
    below SLOWER; `undecided: not testable here` where the controls fail. The interval is G(6)'s, the growth that of
    G(6) - G(1)."""
    first, last = steps.gap(one_head_1, many_heads_1), steps.gap(one_head_6, many_heads_6)
    at_many, growth = intervals.over_seeds(last, confidence), intervals.over_seeds(last - first, confidence)
    if not steps.controls_hold(one_head_1, many_heads_1, many_heads_6, confidence):
        return Decision(rules.UNDECIDED, steps.NOT_TESTABLE, at_many, growth)
    if at_many.high < SLOWER:
        return Decision(rules.REFUTED, "", at_many, growth)
    supported = at_many.low > SLOWER and growth.low > 0
    return Decision(rules.SUPPORTED if supported else rules.UNDECIDED, "", at_many, growth)


class Corrected(NamedTuple):
    """The rule on a secondary cell.

    Attributes:
      decision: alone.
      p_value: that the ratio at many relations is no more than matters, or does not grow with them, whichever is
        likelier, two-sided; nan where the cell is not testable.
      holds: supported, under Holm over all secondary cells that are testable.
    """

    words: str
    decision: Decision
    p_value: float
    holds: bool


def corrected(cells: Iterable[Arm], confidence: float) -> list[Corrected]:
    """The rule on each of the secondary cells that have the runs for it, as one family."""
    runs = {cell.words: steps.runs_of(cell) for cell in cells}
    decisions = {
        words: slower(*steps.four(fresh), confidence) for words, fresh in runs.items() if not steps.missing(fresh)
    }
    p_values = {}  # of what support rejects: that the gap is at most SLOWER, and that it grows by nothing
    for words, one in decisions.items():
        if one.why != steps.NOT_TESTABLE:
            short = [one.interval._replace(mean=SLOWER - one.interval.mean), one.growth._replace(mean=-one.growth.mean)]
            p_values[words] = min(1.0, 2 * max(map(intervals.p_of_so_low, short)))
    rejected = stats.rejected(list(p_values.values()), 1 - confidence, "holm")
    holds = dict(zip(p_values, rejected.tolist(), strict=True))
    return [
        Corrected(words, one, p_values.get(words, math.nan), holds.get(words, False))
        for words, one in decisions.items()
    ]


def judge(evidence: Evidence) -> Verdict:
    """On the study's shallowest models; the notes have its arms, which are secondary cells."""
    verdict = steps.undecided(evidence, (ID, STATEMENT, RULE))
    if verdict.missing:
        return verdict
    read = steps.four(steps.shallowest(evidence))
    decision = slower(*read, evidence.confidence)
    one_few, many_few, one_many, many_many = (f"{each.median:,.0f}" for each in read)
    ratio = (
        f"With {MANY} relations one head takes {_times(decision.interval)} the steps of {MANY_HEADS} heads, with {FEW} "
        f"relation {_times(intervals.over_seeds(steps.gap(*read[:2]), evidence.confidence))} (medians {one_many} and "
        f"{many_many}; {one_few} and {many_few}; {len(read[2].steps)} fresh seeds, capped at "
        f"{evidence.config.train.steps:,}). From the one to the other the ratio becomes {_times(decision.growth)} as "
        f"large."
    )
    return steps.decided(verdict, decision, ratio, evidence, [*_of_slopes(evidence), *_of_arms(evidence)])


def _of_slopes(evidence: Evidence) -> list[str]:
    """What T depends on, in this study and in its arms of other depths alone."""
    data = evidence.config.data
    spoken = {"demand": data.demand, "sources": data.sources}.items()
    alike = [arm for arm in evidence.arms if spoken <= arm.config["data"].items() and not mlp_first(arm.config)]
    fitted = steps.slopes([steps.fresh_runs(evidence.doses), *map(steps.runs_of, alike)], evidence.confidence)
    if fitted is None:
        return []
    rise, fall, both = (
        f"{fitted[name].mean:+.2f} ({fitted[name].low:+.2f} to {fitted[name].high:+.2f})"
        for name in ("relations", "heads_layers", "sum")
    )
    return [
        f"T goes with the relations to the power {rise} and with heads x layers to the power {fall}, capped runs "
        f"counted at the cap; where relations a head were all that matters the two would add up to 0, and they add up "
        f"to {both}."
    ]


def _of_arms(evidence: Evidence) -> list[str]:
    slower_or_not = "slower the more relations there are: {}supported under Holm (p = {:.2g})"
    return [
        f"Secondary, {words}: with {MANY} relations one head takes {_times(decision.interval)} the steps of "
        f"{MANY_HEADS} heads; {decision.why if math.isnan(p) else slower_or_not.format('' if holds else 'not ', p)}."
        for words, decision, p, holds in corrected(evidence.arms, evidence.confidence)
    ]


def _times(interval: intervals.Interval) -> str:
    """An interval of logarithms as a factor."""
    mean, low, high = map(math.exp, interval[:3])
    return f"{mean:.2f} times ({low:.2f} to {high:.2f})"
