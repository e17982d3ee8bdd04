"""When the runs of a pack end: after a fixed number of steps, or as soon as a measured loss is low (claim C4).

Which runs have ended is a pure function of all the pack's looks, so a resume finds the same.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train import grid
from train.config import StudyConfig
from train.losses import answers
from train.run import starts
from train.run.packs import Pack
from train.run.step import State

NO_ATTENTION_STEPS = 1_000  # without attention there is little to learn: the query's own bits
REACHED, CAPPED, HOPELESS, DIVERGED = "reached", "capped", "hopeless", "diverged"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: `steps` is T (REACHED), the cap, or where it was stopped; `loss` its relational loss there."""

    steps: int
    why: str
    loss: float


class Fixed(NamedTuple):
    """All runs train `cap` steps, and nobody looks."""

    cap: int
    look_every: int = 0


@dataclasses.dataclass(frozen=True)
class UntilLow:
    """A run ends at the first look at which its relational loss is at most config.dose.threshold, at `cap` at most.

    Attributes:
      cap: steps, whole looks.
      split: `tune` or `test`: the documents that looks are taken on.
      to_the_cap: runs go on however low the loss is.
      known: by rate, T of each tuning run of other packs; a tuning run whose rate can no longer have the lowest median
        ends as HOPELESS. None: nobody competes.
    """

    config: StudyConfig
    pack: Pack
    cap: int
    split: str
    to_the_cap: bool
    known: dict[float, list[int]] | None

    @property
    def look_every(self) -> int:
        return self.config.dose.look_every

    def look(self, state: State, rows: Sequence[int]) -> list[dict]:
        """Of each of the pack's replicas `rows`, which are the first rows of `state`: its relational loss, together
        and by relation, in nats a bit above the floor; none together of one that diverged, which keeps the weights that
        it had before."""
        seeds, diverged = [self.pack.replicas[row].data_seed for row in rows], np.asarray(state.diverged_at) >= 0
        seen = answers.of_seeds(self.pack.model, state.params, self.config, self.pack.dose, self.split, seeds)
        return [each | {"loss": math.nan} if lost else each for each, lost in zip(seen, diverged, strict=False)]

    def ended(self, looks: list[dict]) -> dict[str, Outcome]:
        """The runs that need no more steps, by name."""
        ended: dict[str, Outcome] = {}
        for step in sorted({line["step"] for line in looks}):
            lines = {line["replica"]: line for line in looks if line["step"] == step}
            for name, line in lines.items():
                if line["loss"] is None:
                    ended[name] = Outcome(self.cap, DIVERGED, math.log(2))
                elif line["loss"] <= self.config.dose.threshold and not self.to_the_cap:
                    ended[name] = Outcome(step, REACHED, line["loss"])
            for name in self._hopeless(step, ended) if self.known is not None else ():
                if name in lines and name not in ended:
                    ended[name] = Outcome(step, HOPELESS, lines[name]["loss"])
        return ended

    def _hopeless(self, step: int, ended: dict[str, Outcome]) -> list[str]:
        """The replicas of rates whose median T can no longer be the lowest, whatever packs to come bring."""
        steps = {rate: list(each) for rate, each in self.known.items()}
        for replica in self.pack.replicas:
            own = ended.get(replica.name)
            steps.setdefault(replica.learning_rate, []).append(own.steps if own else None)
        lacking = {rate: len(grid.choosing_seeds(self.config)) - len(each) for rate, each in steps.items()}

        def foreseen(judged: float) -> dict[float, list[int | None]]:
            return {rate: [*each, *[0 if rate == judged else None] * lacking[rate]] for rate, each in steps.items()}

        rates = {rate for rate in steps if hopeless(step, foreseen(rate), rate)}
        return [replica.name for replica in self.pack.replicas if replica.learning_rate in rates]

    def outcomes(self, looks: list[dict]) -> list[Outcome]:
        """Of every replica of the pack, once none trains on."""
        ended, last = self.ended(looks), {line["replica"]: line for line in looks}
        return [
            ended.get(replica.name) or Outcome(self.cap, CAPPED, last[replica.name]["loss"])
            for replica in self.pack.replicas
        ]


Rule = Fixed | UntilLow


def rule_for(pack: Pack, config: StudyConfig, known: dict[float, list[int]]) -> Rule:
    """The rule of a pack, whose replicas share a start and are all of tuning seeds or none.

    Args:
      known: by rate, T of each tuning run of the cell's other packs.
    """
    if not pack.dose:
        return Fixed(config.train.steps)
    start, every = pack.replicas[0].start, config.dose.look_every
    most = -(-NO_ATTENTION_STEPS // every) * every if start == starts.NO_ATTENTION else config.train.steps
    tunes = grid.chooses(pack.replicas[0], config)
    cap, split = min(config.train.steps, most), "tune" if tunes else "test"
    return UntilLow(config, pack, cap, split, start in starts.TO_THE_CAP, known if tunes else None)


def hopeless(step: int, steps: dict[float, list[int | None]], rate: float) -> bool:
    """Whether the median T of `rate` can no longer be the lowest, so that its runs may stop at `step`.

    Args:
      steps: by rate, T of each tuning run, None while it has not got there.
    """
    least = statistics.median(step if each is None else each for each in steps[rate])
    whole = [statistics.median(runs) for other, runs in steps.items() if other != rate and None not in runs]
    return any(median < least for median in whole)
