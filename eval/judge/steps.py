"""T, the training steps until the relational loss is at most a threshold, of one head and of many: what C4's claims
share.

T(h, r) is of h heads at r relations; a run that does not get there counts as the cap. Every array has one entry a fresh
seed, in the same order.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval import doses
from eval.judge import intervals
from eval.judge.arms import Arm, mlp_first
from eval.judge.evidence import Evidence
from eval.judge.rules import UNDECIDED
from eval.judge.verdict import Verdict
from train.config import StudyConfig
from train.run import starts

FEW, MANY = 1, 6  # doses that the rules speak of
ONE_HEAD, MANY_HEADS = 1, 8  # fixed beforehand
CONTROL = math.log(2)  # the gap at few relations must lie within
NOT_TESTABLE = "not testable here"


class Steps(NamedTuple):
    """T of a (number of heads, number of relations).

    Attributes:
      steps: (n,), the cap where it was not reached.
      reached: bool (n,).
    """

    steps: np.ndarray
    reached: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.steps))


class Decision(NamedTuple):
    """A verdict with what decided it.

    Attributes:
      why: of an undecided one, '' where the interval alone leaves it open.
      interval: that decides.
      growth: of what else the rule reads, None where it reads nothing else.
    """

    verdict: str
    why: str
    interval: intervals.Interval
    growth: intervals.Interval | None = None


def gap(one_head: Steps, many_heads: Steps) -> np.ndarray:
    """G = ln T(1, r) - ln T(8, r) of each seed, (n,)."""
    return np.log(one_head.steps) - np.log(many_heads.steps)


def controls_hold(one_head_1: Steps, many_heads_1: Steps, many_heads_6: Steps, confidence: float = 0.95) -> bool:
    """Eight heads get there with six relations in every seed, and with one relation both need about the same."""
    control = intervals.over_seeds(gap(one_head_1, many_heads_1), confidence)
    return bool(np.all(many_heads_6.reached)) and -CONTROL < control.low and control.high < CONTROL


def fresh_runs(table: pd.DataFrame, stage: str = doses.FRESH) -> pd.DataFrame:
    return table[table.stage == stage] if len(table) else table


def runs_of(arm: Arm) -> pd.DataFrame:
    """The fresh runs of a secondary cell."""
    return fresh_runs(arm.doses, starts.MLP_FIRST if mlp_first(arm.config) else doses.FRESH)


def shallowest(evidence: Evidence) -> pd.DataFrame:
    """The fresh runs of the study's shallowest models, which its verdicts are on."""
    fresh = fresh_runs(evidence.doses)
    return fresh[fresh.num_layers == fresh.num_layers.min()] if len(fresh) else fresh


def of(fresh: pd.DataFrame, heads: int, dose: int) -> Steps:
    mine = fresh[(fresh.num_heads == heads) & (fresh.relations == dose)].sort_values("seed")
    return Steps(mine.steps.to_numpy(float), (mine.outcome == "reached").to_numpy())


def four(fresh: pd.DataFrame) -> list[Steps]:
    """T(1, 1), T(8, 1), T(1, 6), T(8, 6), which the rules read."""
    return [of(fresh, heads, dose) for dose in (FEW, MANY) for heads in (ONE_HEAD, MANY_HEADS)]


def missing(fresh: pd.DataFrame) -> list[str]:
    """Of what the rules read, what has no fresh run."""
    there = set(zip(fresh.num_heads, fresh.relations, strict=True)) if len(fresh) else set()
    wanted = [(heads, dose) for heads in (ONE_HEAD, MANY_HEADS) for dose in (FEW, MANY)]
    return [f"{heads} heads at {dose} relations" for heads, dose in wanted if (heads, dose) not in there]


def slopes(tables: list[pd.DataFrame], confidence: float) -> dict[str, intervals.Interval] | None:
    """What log T of fresh runs depends on: intervals over seeds of exponents, None where too few shapes or doses have
    runs to tell them apart. Capped runs count as the cap.

    In log T = a log r + b log(heads x layers) + c, by least squares within each seed: a is `relations`, b is
    `heads_layers`, and `sum` is a + b, 0 where r / (heads x layers) alone matters.
    """
    every = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()])
    fitted = []
    for _, mine in every.groupby("seed") if len(every) else ():
        heads_layers = np.log(mine.num_heads * mine.num_layers)
        design = np.stack([np.log(mine.relations), heads_layers, np.ones(len(mine))], axis=1).astype(float)
        if np.linalg.matrix_rank(design) < design.shape[1]:
            return None
        fitted.append(np.linalg.lstsq(design, np.log(mine.steps.to_numpy(float)), rcond=None)[0][:2])
    if len(fitted) < 2:
        return None
    relations, heads_layers = np.array(fitted).T
    exponents = {"relations": relations, "heads_layers": heads_layers, "sum": relations + heads_layers}
    return {name: intervals.over_seeds(values, confidence) for name, values in exponents.items()}


def applies(evidence: Evidence) -> str:
    """Why such a claim is not judged here at all; '' where it is."""
    return "" if evidence.config.dose.relations else "The study is none of how many relations a head learns."


def of_kinds(config: StudyConfig) -> bool:
    """Whether the study is of family K."""
    return any(letter.isalpha() for letter in config.data.relations)


def undecided(evidence: Evidence, claim: tuple[str, str, str]) -> Verdict:
    """The verdict before it is decided; with `missing` it cannot be.

    Args:
      claim: ID, statement and rule.
    """
    config, lacks, (*named, rule) = evidence.config, missing(shallowest(evidence)), claim
    faults = {
        f"The kinds {config.data.relations} are no dose of family P, which the claim speaks of.": of_kinds(config),
        f"Under train.schedule={config.train.schedule} the steps that are needed depend on the cap.":
            config.train.schedule != "constant",
        f"No fresh run of {', '.join(lacks)}.": lacks,
    }  # fmt: skip
    why = tuple(sentence for sentence, holds in faults.items() if holds)[:1]
    said = f"Not judged: {why[0]}" if why else ""
    return Verdict(*named, UNDECIDED, said, rule, 0.0, evidence.confidence, missing=why)


def decided(verdict: Verdict, decision: Decision, sentence: str, evidence: Evidence, notes=()) -> Verdict:
    """`verdict` of `undecided` as decided.

    Args:
      notes: more than that it is of a secondary cell.
    """
    data, fresh = evidence.config.data, shallowest(evidence)
    effect, low, high = (float(value) if math.isfinite(value) else None for value in decision.interval[:3])
    why = f"{decision.why[:1].upper()}{decision.why[1:]}. " if decision.why else ""
    runs = {f"h{heads}_r{dose}": of(fresh, heads, dose) for heads in (ONE_HEAD, MANY_HEADS) for dose in (FEW, MANY)}
    primary = (fresh.num_layers.iloc[0], data.demand, data.sources) == (1, "joint", "exchangeable")
    secondary = () if primary else ("A secondary cell: the claim is judged at one layer, joint, exchangeable.",)
    return dataclasses.replace(
        verdict,
        verdict=decision.verdict,
        sentence=why + sentence,
        effect=effect,
        low=low,
        high=high,
        n=len(runs[f"h{ONE_HEAD}_r{MANY}"].steps),
        notes=(*secondary, *notes),
        details={
            "median_steps": {name: each.median for name, each in runs.items()},
            "capped": {name: int((~each.reached).sum()) for name, each in runs.items()},
        },
    )
