"""The figures of a study of doses, each a small function from its runs to a matplotlib Figure.

Matplotlib is imported where it is used: a study that draws nothing does not wait for it.
"""

import math

import numpy as np
import pandas as pd

from eval.judge import intervals, steps
from eval.judge.claims.c4a_slower import SLOWER
from eval.report import style
from train.config import StudyConfig

CHANCE = math.log(2)
SIZE = (5.6, 3.4)
DOSES, ABOVE = "relations switched on", "nats a bit above the floor"
DOTTED = {"color": style.MUTED, "linewidth": 0.8, "linestyle": ":"}


def even_weights(relations: int) -> float:
    """Nats that one head leaves which weighs r exchangeable sources alike: it sees the sum of their bits alone, so of
    the 2^r answers those stay equally likely that have as many ones."""
    ways = [math.comb(relations, ones) for ones in range(relations + 1)]
    return sum(number * math.log(number) for number in ways) / 2**relations


def even(dose: int, config: StudyConfig) -> float | None:
    """Nats a bit that even weights leave, where that is known and not 0."""
    exchangeable = config.data.sources == "exchangeable" and config.data.demand == "joint"
    return even_weights(dose) / dose if exchangeable and dose > 1 and not steps.of_kinds(config) else None


def taken(table: pd.DataFrame, config: StudyConfig):
    """T of every fresh run, an arrow where the cap came first, and the medians joined."""
    axes = style.axes("Steps to the threshold", DOSES, "training steps", SIZE)
    for runs, label, colour, marker, shift in _by_heads(table, 0.08):
        medians = runs.groupby("relations").steps.median()
        axes.plot(medians.index + shift, medians, color=colour, label=label)
        for reached, mark in ((True, marker), (False, r"$\uparrow$")):
            mine = runs[(runs.outcome == "reached") == reached]
            axes.scatter(mine.relations + shift, mine.steps, s=30, marker=mark, facecolor="none", edgecolor=colour)
    axes.set(yscale="log", xticks=sorted(steps.fresh_runs(table).relations.unique()))
    return _with_line(axes, config.train.steps)


def learning(curves: dict[int, dict], dose: int, config: StudyConfig):
    """The relational loss of every fresh run at every look."""
    axes = style.axes(_counted(dose), "training steps", ABOVE, SIZE)
    for index, (heads, runs) in enumerate(curves.items()):
        for number, lines in enumerate(runs.values()):
            at, losses = ([line[key] for line in lines] for key in ("step", "loss"))
            label = f"h = {heads}" if number == 0 else None
            axes.plot(at, losses, color=style.category(index), linewidth=1, alpha=0.8, label=label)
    axes.axhline(config.dose.threshold, **DOTTED)
    if level := even(dose, config):
        _named_line(axes, level, "even weights", "-")
    axes.set(xscale="log", ylim=(0, 1.15 * CHANCE))
    axes.legend()
    return axes.figure


def left(table: pd.DataFrame, config: StudyConfig, confidence: float):
    """The loss of every fresh run where it stopped, with means and their intervals over seeds."""
    axes = style.axes("Loss at the stop", DOSES, ABOVE, SIZE)
    for runs, label, colour, marker, shift in _by_heads(table, 0.12):
        axes.scatter(runs.relations + shift, runs.loss, s=18, facecolor="none", edgecolor=colour, alpha=0.7)
        losses = runs.groupby("relations").loss
        means = {dose: intervals.over_seeds(of_dose.to_numpy(), confidence) for dose, of_dose in losses}
        _intervals(axes, means, shift, colour, marker, label)
    axes.set(xticks=sorted(steps.fresh_runs(table).relations.unique()), ylim=(0, 1.15 * CHANCE))
    return _with_line(axes, config.dose.threshold)


def _by_heads(table: pd.DataFrame, apart: float) -> list[tuple]:
    """Of each number of heads its fresh runs, label, colour, marker, and how far aside they are drawn."""
    groups = list(steps.fresh_runs(table).groupby("num_heads"))
    return [
        (runs, f"h = {heads}", style.category(index), style.marker(index), apart * (index - (len(groups) - 1) / 2))
        for index, (heads, runs) in enumerate(groups)
    ]


def _with_line(axes, height: float):
    """The figure of `axes`, with a dotted line and the legend."""
    axes.axhline(height, **DOTTED)
    axes.legend()
    return axes.figure


def _counted(dose: int) -> str:
    return f"{dose} {'relation' if dose == 1 else 'relations'}"


def ratios(table: pd.DataFrame, confidence: float) -> dict[int, intervals.Interval]:
    """By dose, the interval of G = ln T(1, r) - ln T(8, r), where both have fresh runs."""
    fresh, sides = steps.fresh_runs(table), (steps.ONE_HEAD, steps.MANY_HEADS)
    both = {dose: [steps.of(fresh, heads, dose) for heads in sides] for dose in sorted(fresh.relations.unique())}
    by_dose = {dose: steps.gap(*runs) for dose, runs in both.items() if all(len(each.steps) for each in runs)}
    return {dose: intervals.over_seeds(gaps, confidence) for dose, gaps in by_dose.items()}


def ratio(ratios: dict[int, intervals.Interval]):
    axes = style.axes(f"Steps of one head over those of {steps.MANY_HEADS}", DOSES, "times as many", SIZE)
    factors = {dose: intervals.Interval(*np.exp(one[:3])) for dose, one in ratios.items()}
    _intervals(axes, factors, 0.0, style.category(0), style.marker(0), "mean over seeds, capped runs as the cap")
    axes.axhline(1, color=style.INK, linewidth=1)
    for factor, words in ((math.exp(SLOWER), "matters"), (math.exp(steps.CONTROL), "control")):
        _named_line(axes, factor, f"{words}: {factor:g}", ":")
    axes.set(yscale="log", xticks=list(ratios))
    low, high = (pick(end for one in factors.values() for end in one[:3] if end == end) for pick in (min, max))
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if 0.8 * min(low, 1) <= tick <= 1.25 * max(high, 2)]
    style.ticks(axes.yaxis, ticks)
    axes.legend()
    return axes.figure


def _named_line(axes, height: float, words: str, linestyle: str) -> None:
    axes.axhline(height, color=style.MUTED, linewidth=0.8, linestyle=linestyle)
    axes.text(1, height, words, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8,
              color=style.MUTED)  # fmt: skip


def _intervals(axes, found: dict[int, intervals.Interval], shift: float, colour, mark, label: str) -> None:
    """A joined mark a dose at its mean, with the interval as a bar."""
    at = [dose + shift for dose in found]
    mean, low, high = np.array([one[:3] for one in found.values()]).T
    axes.plot(at, mean, color=colour, marker=mark, markersize=6, label=label)
    axes.errorbar(at, mean, [mean - low, high - mean], color=colour, fmt="none", linewidth=1.1, capsize=3)


def by_relation(curves: dict[int, dict], dose: int, config: StudyConfig):
    """The loss of each relation against the step, a panel a number of heads: the mean over the seeds that have it on,
    each at its last look once it has stopped."""
    from matplotlib.figure import Figure

    shown = {heads: runs for heads, runs in curves.items() if runs}
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(1.2 + 2.4 * columns, 0.9 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    names = {name for runs in shown.values() for lines in runs.values() for name in lines[0]["relations"]}
    ordered = sorted(names, key=lambda name: (name[0], int(name[1:] or 0)))
    for axes, (heads, runs) in zip(panels, shown.items(), strict=False):  # the last row may have room for more
        looked = np.unique([line["step"] for lines in runs.values() for line in lines])
        for number, name in enumerate(ordered):
            held = [_held(lines, name, looked) for lines in runs.values() if name in lines[0]["relations"]]
            if held:
                axes.plot(looked, np.mean(held, axis=0), color=style.category(number), linewidth=1.2, label=name)
        axes.axhline(config.dose.threshold, **DOTTED)
        axes.set(title=f"h = {heads}", xscale="log", ylim=(0, 1.15 * CHANCE))
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.suptitle(f"{_counted(dose)}, one by one", fontsize=10)
    figure.supxlabel("training steps", fontsize=9)
    figure.supylabel(ABOVE, fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _held(lines: list[dict], name: str, looked: np.ndarray) -> np.ndarray:
    """A run's loss of one relation at each of `looked`, that of its last look from there on."""
    seen = {line["step"]: line["relations"][name] for line in lines if line["relations"].get(name) is not None}
    at = np.array(sorted(seen))
    return np.array([seen[step] for step in at])[np.searchsorted(at, np.minimum(looked, at[-1]), side="right") - 1]
