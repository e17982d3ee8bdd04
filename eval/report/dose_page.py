"""The page of a study of doses: report/index.html, one file, and its figures in report/figures/."""

import math
import os
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np
import pandas as pd

from eval.claims import Verdict
from eval.dose import of_kinds, write_tables, write_verdicts
from eval.dose_secondary import Secondary
from eval.report import style
from train import dose_study, starts
from train.config import StudyConfig
from train.grid import Cell
from train.workdir import Workdir

HERE = pathlib.Path(__file__).parent
STARTS = {
    starts.HAND_BUILT: "weights by hand",
    starts.NO_ATTENTION: "attention off",
    starts.MLP_FIRST: "an MLP before the first attention",
}
# One head that weighs r exchangeable sources alike leaves this much of r ln 2 nats: it sees their sum alone.
EVEN = {2: 0.347, 3: 0.824, 4: 1.365, 6: 2.542}
CHANCE = math.log(2)


def write_all(
    workdir: Workdir, cells: tuple[Cell, ...], config: StudyConfig, beside: Sequence[Secondary] = ()
) -> tuple[list[Verdict], pathlib.Path | None]:
    """Tables, verdicts and page of what the workdir has; no page before any stage is done."""
    table = write_tables(workdir, cells, config)
    verdicts = write_verdicts(workdir, table, config, beside)
    return verdicts, write(workdir, cells, table, verdicts, config) if len(table) else None


def write(
    workdir: Workdir, cells: tuple[Cell, ...], table: pd.DataFrame, verdicts: list[Verdict], config: StudyConfig
) -> pathlib.Path:
    """Writes the page and returns its path; the same results give the same bytes.

    Args:
      table: the runs (eval.dose.write_tables), not empty.
    """
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style.RC}):
        figures = {}
        if (table.stage == dose_study.FRESH).any():
            alt = "Steps to the threshold against the number of relations, by heads."
            figures["steps"] = (_steps(table, config), alt)
        for dose in config.dose.relations:
            curves = {cell.model.num_heads: _curves(workdir, cell, dose, config) for cell in cells}
            if any(curve for curve in curves.values()):
                figures[f"curves_r{dose}"] = (
                    _learning(curves, dose, config),
                    f"Relational loss at every look with {dose} relations, a line a seed.",
                )
                figures[f"relations_r{dose}"] = (
                    _by_relation(curves, dose, config),
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
        rows=_summary(table, config),
        others=_others(table),
        record=workdir.record(),
    )
    folder = workdir.report / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (text, _) in drawn.items():
        _replace(folder / f"{name}.svg", text)
    _replace(workdir.report / "index.html", html)
    return workdir.report / "index.html"


def _summary(table: pd.DataFrame, config: StudyConfig) -> list[dict]:
    """A row a cell and dose that has fresh runs: its rate, T and the loss at the stop."""
    fresh, rows = table[table.stage == dose_study.FRESH], []
    for (heads, dose), runs in fresh.groupby(["num_heads", "relations"]):
        rows.append(
            {
                "heads": heads,
                "dose": dose,
                "rate": f"{runs.learning_rate.iloc[0]:g}",
                "median": f"{runs.steps.median():,.0f}",
                "range": f"{runs.steps.min():,} to {runs.steps.max():,}",
                "capped": f"{(runs.outcome != 'reached').sum()} of {len(runs)}",
                "loss": f"{runs.loss.mean():.3f}",
                "shortcut": f"{runs.shortcut.mean():.3f}",
                "even": f"{even:.3f}" if (even := _even(dose, config)) else "",
            }
        )
    return rows


def _others(table: pd.DataFrame) -> list[dict]:
    """A row a cell, dose and start other than drawn weights."""
    rows = []
    for start, words in STARTS.items():
        for (heads, dose), runs in table[table.stage == start].groupby(["num_heads", "relations"]):
            rows.append(
                {
                    "start": words,
                    "heads": heads,
                    "dose": dose,
                    "rate": f"{runs.learning_rate.iloc[0]:g}",
                    "reached": f"{(runs.outcome == 'reached').sum()} of {len(runs)}",
                    "median": f"{runs.steps.median():,.0f}",
                    "loss": f"{runs.loss.mean():.3f}",
                    "worst": f"{runs.worst.max():.3f}",
                    "query_alone": "" if runs.query_alone.isna().all() else f"{runs.query_alone.mean():.3f}",
                }
            )
    return rows


def _even(dose: int, config: StudyConfig) -> float | None:
    """Nats a bit that one head leaves which weighs the sources of a dose alike, where that is known."""
    exchangeable = config.data.sources == "exchangeable" and config.data.demand == "joint"
    return EVEN[dose] / dose if exchangeable and dose in EVEN and not of_kinds(config) else None


def _curves(workdir: Workdir, cell: Cell, dose: int, config: StudyConfig) -> dict[str, list[dict]]:
    """Looks of the fresh runs, by run."""
    curves: dict[str, list[dict]] = {}
    for line in dose_study.looks(workdir.cell(dose_study.name_of(cell, dose)), dose_study.FRESH):
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
    fresh = table[table.stage == dose_study.FRESH]
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
        axes.axhline(even, color=style.MUTED, linewidth=0.8)
        axes.text(1, even, "even weights", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
                  fontsize=8, color=style.MUTED)  # fmt: skip
    axes.set(xlabel="training steps", xscale="log", ylim=(0, 1.15 * CHANCE))
    axes.legend()
    return figure


def _by_relation(curves: dict[int, dict], dose: int, config: StudyConfig):
    """The loss of each relation against the step, mean over the seeds that have it on and have not stopped."""
    figure, axes = _axes(f"{dose} {'relation' if dose == 1 else 'relations'}, one by one", "nats a bit above the floor")
    names = sorted({name for runs in curves.values() for lines in runs.values() for name in lines[0]["relations"]},
                   key=lambda name: (name[0], int(name[1:] or 0)))  # fmt: skip
    styles = ("-", "--", ":", "-.")
    for index, runs in enumerate(curves.values()):
        for number, name in enumerate(names):
            points: dict[int, list[float]] = {}
            for lines in runs.values():
                for line in lines:
                    if line["relations"].get(name) is not None:
                        points.setdefault(line["step"], []).append(line["relations"][name])
            steps = sorted(points)
            means = [np.mean(points[step]) for step in steps]
            label = name if index == 0 else None
            axes.plot(steps, means, styles[index % 4], color=style.category(number), linewidth=1.2, label=label)
    heads = ", ".join(
        f"h = {heads} {words}" for heads, words in zip(curves, ("solid", "dashed", "dotted"), strict=False)
    )
    axes.set(xlabel=f"training steps ({heads})", xscale="log", ylim=(0, 1.15 * CHANCE))
    axes.legend(ncols=2)
    return figure


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes `path` in one step: a reader sees the old page or the new one, whole."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
