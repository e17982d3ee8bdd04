"""The page of a study of doses: report/index.html, one file, and its figures in report/figures/."""

import math
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np
import pandas as pd

from eval import doses
from eval.judge import dose_rules, dose_secondary, intervals
from eval.judge.claims import Verdict
from eval.judge.dose import of_kinds, write_verdicts
from eval.judge.dose_secondary import MANY_HEADS, ONE_HEAD, Secondary
from eval.judge.intervals import Interval
from eval.report import style
from train import files
from train.config import StudyConfig
from train.grid import Cell
from train.run import starts
from train.workdir import Workdir

HERE = pathlib.Path(__file__).parent
STARTS = {
    starts.HAND_BUILT: "weights by hand",
    starts.NO_ATTENTION: "attention off",
    starts.MLP_FIRST: "an MLP before the first attention",
}
CHANCE = math.log(2)


def write_all(
    workdir: Workdir, cells: tuple[Cell, ...], config: StudyConfig, beside: Sequence[Secondary] = ()
) -> tuple[list[Verdict], pathlib.Path | None]:
    """Tables, verdicts and page of what the workdir has; no page before any stage is done."""
    table = doses.write_table(workdir, cells, config)
    verdicts = write_verdicts(workdir, table, config, beside)
    return verdicts, write(workdir, cells, table, verdicts, config) if len(table) else None


def write(
    workdir: Workdir, cells: tuple[Cell, ...], table: pd.DataFrame, verdicts: list[Verdict], config: StudyConfig
) -> pathlib.Path:
    """Writes the page and returns its path; the same results give the same bytes.

    Args:
      table: the runs (eval.doses.write_table), not empty.
    """
    import matplotlib

    curves = {
        dose: {cell.model.num_heads: _curves(workdir, cell, config) for cell in cells if cell.dose == dose}
        for dose in config.dose.relations
    }
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style.RC}):
        figures = {}
        if (table.stage == doses.FRESH).any():
            alt = "Steps to the threshold against the number of relations, by heads."
            figures["steps"] = (_steps(table, config), alt)
            alt = "Relational loss where runs stop against the number of relations, by heads."
            figures["left"] = (_left(table, config), alt)
            ratios = _ratios(table, config)
            if ratios:
                alt = f"How many times the steps of {MANY_HEADS} heads one head takes, against the number of relations."
                figures["ratio"] = (_ratio(ratios), alt)
        for dose, of_heads in curves.items():
            if any(of_heads.values()):
                figures[f"curves_r{dose}"] = (
                    _learning(of_heads, dose, config),
                    f"Relational loss at every look with {dose} relations, a line a seed.",
                )
                figures[f"relations_r{dose}"] = (
                    _by_relation(of_heads, dose, config),
                    f"Loss of each relation at every look with {dose} relations, mean over the seeds.",
                )
        drawn = {name: (style.svg(figure, name), alt) for name, (figure, alt) in figures.items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("dose.html.j2").render(
        theme=style.THEME,
        figures={name: style.inline(text, alt, {}) for name, (text, alt) in drawn.items()},
        verdicts=verdicts,
        config=config,
        rows=_summary(table, curves, config),
        others=_others(table),
        record=workdir.record(),
    )
    folder = workdir.report / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (text, _) in drawn.items():
        files.write_text(folder / f"{name}.svg", text)
    files.write_text(workdir.report / "index.html", html)
    return workdir.report / "index.html"


def _summary(table: pd.DataFrame, curves: dict[int, dict[int, dict]], config: StudyConfig) -> list[dict]:
    """A row a cell and dose that has fresh runs: its rate, T, when the first and the last of its relations were half
    learnt, and the loss at the stop."""
    fresh, rows = table[table.stage == doses.FRESH], []
    for (heads, dose), runs in fresh.groupby(["num_heads", "relations"]):
        rows.append(
            {
                "heads": heads,
                "dose": dose,
                "rate": f"{runs.learning_rate.iloc[0]:g}",
                "median": f"{runs.steps.median():,.0f}",
                "range": f"{runs.steps.min():,} to {runs.steps.max():,}",
                "capped": f"{(runs.outcome != 'reached').sum()} of {len(runs)}",
                "apart": _apart(curves[dose][heads], len(runs), config) if dose > 1 else "",
                "loss": f"{runs.loss.mean():.3f}",
                "shortcut": f"{runs.shortcut.mean():.3f}",
                "even": f"{even:.3f}" if (even := _even(dose, config)) else "",
            }
        )
    return rows


def _apart(curves: dict[str, list[dict]], count: int, config: StudyConfig) -> str:
    """Medians over `count` runs of the looks at which the first and the last relation first had half of chance left;
    one that never had, or a run that never had a finite loss, counts as the cap."""
    cap = config.train.steps
    first, last = ([cap] * (count - len(curves)) for _ in range(2))
    for lines in curves.values():
        learnt = dict.fromkeys(lines[0]["relations"], cap)
        for line in lines:
            for name, loss in line["relations"].items():
                if loss is not None and loss <= CHANCE / 2:
                    learnt[name] = min(learnt[name], line["step"])
        first.append(min(learnt.values()))
        last.append(max(learnt.values()))
    return f"{np.median(first):,.0f} and {np.median(last):,.0f}"


def _others(table: pd.DataFrame) -> list[dict]:
    """A row a cell, dose and start other than drawn weights."""
    rows = []
    for start, words in STARTS.items():
        to_the_cap = start in starts.TO_THE_CAP
        for (heads, dose), runs in table[table.stage == start].groupby(["num_heads", "relations"]):
            rows.append(
                {
                    "start": words,
                    "heads": heads,
                    "dose": dose,
                    "rate": f"{runs.learning_rate.iloc[0]:g}",
                    "reached": "" if to_the_cap else f"{(runs.outcome == 'reached').sum()} of {len(runs)}",
                    "median": "" if to_the_cap else f"{runs.steps.median():,.0f}",
                    "loss": f"{runs.loss.mean():.3f}",
                    "worst": f"{runs.worst.max():.3f}",
                    "query_alone": "" if runs.query_alone.isna().all() else f"{runs.query_alone.mean():.3f}",
                }
            )
    return rows


def even_weights(relations: int) -> float:
    """Nats that one head leaves which weighs r exchangeable sources alike: it sees the sum of their bits alone, so of
    the 2^r answers those stay equally likely that have as many ones."""
    ways = [math.comb(relations, ones) for ones in range(relations + 1)]
    return sum(number * math.log(number) for number in ways) / 2**relations


def _even(dose: int, config: StudyConfig) -> float | None:
    """Nats a bit that even weights leave, where that is known and not 0."""
    exchangeable = config.data.sources == "exchangeable" and config.data.demand == "joint"
    return even_weights(dose) / dose if exchangeable and dose > 1 and not of_kinds(config) else None


def _curves(workdir: Workdir, cell: Cell, config: StudyConfig) -> dict[str, list[dict]]:
    """Looks of the fresh runs, by run."""
    curves: dict[str, list[dict]] = {}
    for line in doses.looks(workdir, cell.name, doses.FRESH, config):
        if line["loss"] is not None:
            curves.setdefault(line["replica"], []).append(line)
    return curves


def _axes(title: str, ylabel: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, ylabel=ylabel)
    return figure, axes


def _steps(table: pd.DataFrame, config: StudyConfig):
    """T of every fresh run, an arrow where the cap came first, and the medians joined."""
    figure, axes = _axes("Steps to the threshold", "training steps")
    fresh = table[table.stage == doses.FRESH]
    for index, (heads, runs) in enumerate(fresh.groupby("num_heads")):
        colour, shift = style.category(index), 0.08 * (index - (fresh.num_heads.nunique() - 1) / 2)
        medians = runs.groupby("relations").steps.median()
        axes.plot(medians.index + shift, medians, color=colour, label=f"h = {heads}")
        for reached, mark in ((True, style.marker(index)), (False, r"$\uparrow$")):
            mine = runs[(runs.outcome == "reached") == reached]
            axes.scatter(mine.relations + shift, mine.steps, s=30, marker=mark, facecolor="none", edgecolor=colour)
    axes.set(yscale="log", xlabel="relations switched on", xticks=sorted(fresh.relations.unique()))
    axes.axhline(config.train.steps, color=style.MUTED, linewidth=0.8, linestyle=":")
    axes.legend()
    return figure


def _learning(curves: dict[int, dict], dose: int, config: StudyConfig):
    """The relational loss of every fresh run at every look."""
    plural = "relation" if dose == 1 else "relations"
    figure, axes = _axes(f"{dose} {plural}", "nats a bit above the floor")
    for index, (heads, runs) in enumerate(curves.items()):
        for number, lines in enumerate(runs.values()):
            steps, losses = ([line[key] for line in lines] for key in ("step", "loss"))
            label = f"h = {heads}" if number == 0 else None
            axes.plot(steps, losses, color=style.category(index), linewidth=1, alpha=0.8, label=label)
    axes.axhline(config.dose.threshold, color=style.MUTED, linewidth=0.8, linestyle=":")
    even = _even(dose, config)
    if even:
        _named_line(axes, even, "even weights", "-")
    axes.set(xlabel="training steps", xscale="log", ylim=(0, 1.15 * CHANCE))
    axes.legend()
    return figure


def _left(table: pd.DataFrame, config: StudyConfig):
    """The loss of every fresh run where it stopped, with means and their intervals over seeds."""
    figure, axes = _axes("Loss at the stop", "nats a bit above the floor")
    fresh = table[table.stage == doses.FRESH]
    for index, (heads, runs) in enumerate(fresh.groupby("num_heads")):
        colour, shift = style.category(index), 0.12 * (index - (fresh.num_heads.nunique() - 1) / 2)
        axes.scatter(runs.relations + shift, runs.loss, s=18, facecolor="none", edgecolor=colour, alpha=0.7)
        found = {dose: intervals.over_seeds(mine.loss.to_numpy(), _confidence(config)) for dose, mine in
                 runs.groupby("relations")}  # fmt: skip
        _intervals(axes, found, shift, colour, style.marker(index), f"h = {heads}")
    axes.set(xlabel="relations switched on", xticks=sorted(fresh.relations.unique()), ylim=(0, 1.15 * CHANCE))
    axes.axhline(config.dose.threshold, color=style.MUTED, linewidth=0.8, linestyle=":")
    axes.legend()
    return figure


def _ratios(table: pd.DataFrame, config: StudyConfig) -> dict[int, Interval]:
    """By dose, the interval of G = ln T(1, r) - ln T(8, r), where both have fresh runs."""
    fresh, found = dose_secondary.fresh_runs(table), {}
    for dose in sorted(fresh.relations.unique()):
        one, many = (dose_secondary.steps_of(fresh, heads, dose) for heads in (ONE_HEAD, MANY_HEADS))
        if len(one.steps) and len(many.steps):
            found[dose] = intervals.over_seeds(dose_rules.gap(one, many), _confidence(config))
    return found


def _ratio(ratios: dict[int, Interval]):
    figure, axes = _axes(f"Steps of one head over those of {MANY_HEADS}", "times as many")
    found = {dose: Interval(*np.exp(one[:3])) for dose, one in ratios.items()}
    _intervals(axes, found, 0.0, style.category(0), style.marker(0), "mean over seeds, capped runs as the cap")
    axes.axhline(1, color=style.INK, linewidth=1)
    for factor, words in ((math.exp(dose_rules.SLOWER), "matters"), (math.exp(dose_rules.CONTROL), "control")):
        _named_line(axes, factor, f"{words}: {factor:g}", ":")
    axes.set(yscale="log", xlabel="relations switched on", xticks=list(ratios))
    low, high = (pick(end for one in found.values() for end in one[:3] if end == end) for pick in (min, max))
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if 0.8 * min(low, 1) <= tick <= 1.25 * max(high, 2)]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.legend()
    return figure


def _named_line(axes, height: float, words: str, linestyle: str) -> None:
    axes.axhline(height, color=style.MUTED, linewidth=0.8, linestyle=linestyle)
    axes.text(1, height, words, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8,
              color=style.MUTED)  # fmt: skip


def _intervals(axes, found: dict[int, Interval], shift: float, colour, mark, label: str) -> None:
    """A joined mark a dose at its mean, with the interval as a bar."""
    at = [dose + shift for dose in found]
    mean, low, high = np.array([one[:3] for one in found.values()]).T
    axes.plot(at, mean, color=colour, marker=mark, markersize=6, label=label)
    axes.errorbar(at, mean, [mean - low, high - mean], color=colour, fmt="none", linewidth=1.1, capsize=3)


def _confidence(config: StudyConfig) -> float:
    return 1 - 0.05 / config.claims.looks


def _by_relation(curves: dict[int, dict], dose: int, config: StudyConfig):
    """The loss of each relation against the step, a panel a number of heads: the mean over the seeds that have it on,
    each at its last look once it has stopped."""
    from matplotlib.figure import Figure

    shown = {heads: runs for heads, runs in curves.items() if runs}
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(1.2 + 2.4 * columns, 0.9 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    names = sorted({name for runs in shown.values() for lines in runs.values() for name in lines[0]["relations"]},
                   key=lambda name: (name[0], int(name[1:] or 0)))  # fmt: skip
    for axes, (heads, runs) in zip(panels, shown.items(), strict=False):  # the last row may have room for more
        steps = np.unique([line["step"] for lines in runs.values() for line in lines])
        for number, name in enumerate(names):
            held = [_held(lines, name, steps) for lines in runs.values() if name in lines[0]["relations"]]
            if held:
                axes.plot(steps, np.mean(held, axis=0), color=style.category(number), linewidth=1.2, label=name)
        axes.axhline(config.dose.threshold, color=style.MUTED, linewidth=0.8, linestyle=":")
        axes.set(title=f"h = {heads}", xscale="log", ylim=(0, 1.15 * CHANCE))
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.suptitle(f"{dose} {'relation' if dose == 1 else 'relations'}, one by one", fontsize=10)
    figure.supxlabel("training steps", fontsize=9)
    figure.supylabel("nats a bit above the floor", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _held(lines: list[dict], name: str, steps: np.ndarray) -> np.ndarray:
    """A run's loss of one relation at each of `steps`, that of its last look from there on."""
    seen = {line["step"]: line["relations"][name] for line in lines if line["relations"].get(name) is not None}
    at = np.array(sorted(seen))
    return np.array([seen[step] for step in at])[np.searchsorted(at, np.minimum(steps, at[-1]), side="right") - 1]
