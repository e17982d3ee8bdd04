"""The figures, each a small function from a table to a matplotlib Figure. Losses are in nats/token.

Matplotlib is imported where it is used: a study that draws nothing does not wait for it. No pyplot, which keeps state.
"""

import math

import numpy as np
import pandas as pd

from eval.judge import intervals
from eval.report import style

SHAPE = ("d_model", "num_heads", "num_layers", "series", "depth")  # of a cell, as the figures tell them apart
AXES = {"num_heads": "the number of heads h", "d_k": "the head width d_k"}
LABELS = {"num_heads": "number of heads h (log scale)", "d_k": "head width d_k (log scale)"}
BARS = "bars: 95 %, these documents"
SIZE = (5.2, 3.7)
LEGEND = 58  # letters that two columns of a legend have room for
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
POINTS = 150  # of one training curve; more cannot be seen


def gid(cell: str, init_seed: int, data_seed: int) -> str:
    """The id of a seed's mark."""
    return f"seed-{cell}-i{init_seed}-d{data_seed}"


def varied(seeds: pd.DataFrame) -> dict[str, str]:
    """What the cells of these runs differ in, by column, in words."""
    several = {axis: words for axis, words in AXES.items() if seeds[axis].nunique() > 1}
    return several or {"num_heads": AXES["num_heads"]}


def limits(seeds: pd.DataFrame) -> dict[int, tuple[float, float]]:
    """The loss axis of each d_model: around its own runs, but as long as the longest, so that slopes compare by eye.

    Diverged runs and intervals do not stretch it: with two seeds an interval is up to 13 times as wide as the runs lie
    apart.
    """
    ends = {}
    for d_model, runs in seeds.groupby("d_model"):
        losses = (runs[runs.status == "done"] if (runs.status == "done").any() else runs).counted
        ends[d_model] = losses.min(), losses.max()
    span = 1.5 * max(high - low for low, high in ends.values()) or 0.1
    return {d_model: ((low + high - span) / 2, (low + high + span) / 2) for d_model, (low, high) in ends.items()}


def loss(seeds: pd.DataFrame, axis: str, bounds: tuple[float, float], bigram: float, index: int):
    """Test loss of one d_model at each cell's chosen rate: every seed, their mean and its interval.

    Args:
      axis: the column on the horizontal axis, num_heads or d_k; lines join cells that differ in nothing else.
      bounds: of the loss axis.
      bigram: loss of the bigram model.
      index: which of the study's d_model this is; sets the colour.
    """
    axes = style.axes(f"d_model {seeds.d_model.iloc[0]}; {BARS}", LABELS[axis], "test loss (nats/token)", SIZE)
    other, name = ("d_k", "d_k") if axis == "num_heads" else ("num_heads", "h")
    fixed = (seeds.series != "").any()
    lines = [line for _, line in seeds.groupby([other, "num_layers"] if fixed else "num_layers")]
    for position, line in enumerate(lines):
        colour = style.category(index) if len(lines) == 1 else style.ordered(position, len(lines))
        label = _joined(f"{name} = {line[other].iloc[0]}" if fixed else "", line.depth.iloc[0]) or "mean over seeds"
        _with_seeds(axes, line, axis, "counted", colour, style.marker(index), label, bounds)
    if bounds[0] <= bigram <= bounds[1]:
        axes.axhline(bigram, color=style.MUTED, linestyle=(0, (5, 3)), linewidth=1, label=f"bigram model {bigram:.3f}")
    else:
        where = "above" if bigram > bounds[1] else "below"
        axes.plot([], [], " ", label=f"bigram model {bigram:.3f}, {where} this frame")
    return _finished(axes, seeds[axis], bounds)


def difference(pairs: pd.DataFrame, axis: str):
    """Test loss less that of h = 1, paired by seed: every seed, the mean and its interval, a line a d_model.

    Args:
      axis: the column on the horizontal axis, num_heads or d_k.
    """
    label = "test loss less that of h = 1 (nats/token)"
    axes = style.axes(f"Difference to one head; {BARS}", LABELS[axis], label, SIZE)
    values = pairs.difference[pairs.status == "done"] if (pairs.status == "done").any() else pairs.difference
    low, high = min(0.0, values.min()), max(0.0, values.max())
    margin, fixed = 0.25 * (high - low) or 0.05, pairs.series
    bounds = (low - margin, high + margin)
    if axis == "d_k":
        fixed = fixed.where(fixed == "", "h = " + pairs.num_heads.astype(str))
    groups = list(pairs.groupby([pairs.d_model, fixed, pairs.num_layers], sort=False))
    for index, ((d_model, value, _), line) in enumerate(groups):
        label, shift = _joined(f"d_model {d_model}", value, line.depth.iloc[0]), 0.1 * (index - (len(groups) - 1) / 2)
        _with_seeds(axes, line, axis, "difference", style.category(index), style.marker(index), label, bounds, shift)
    axes.axhline(0, color=style.INK, linewidth=1, label="one head")
    return _finished(axes, pairs[axis], bounds)


def sensitivity(rates: pd.DataFrame):
    """Mean tune loss against the learning rate for one d_model: a line a cell, its chosen rate ringed; a cross at the
    upper edge stands for a rate at which a run diverged.

    Args:
      rates: d_model, num_heads, num_layers, series, depth, learning_rate, loss, chosen, diverged (runs).
    """
    title = f"d_model {rates.d_model.iloc[0]}"
    axes = style.axes(title, "peak learning rate (log scale)", "tune loss (nats/token)", SIZE)
    whole = rates.loss[rates.diverged == 0] if (rates.diverged == 0).any() else rates.loss
    margin = 0.12 * (whole.max() - whole.min()) or 0.05
    top = whole.max() + margin
    for position, (line, colour, label) in enumerate(_by_cell(rates)):
        whole_only, shown = line.loss.where(line.diverged == 0), line.assign(loss=line.loss.clip(upper=top))
        axes.plot(line.learning_rate, whole_only, style.marker(position) + "-", color=colour, ms=4.5, label=label)
        lost, best = (
            shown[which][["learning_rate", "loss"]].to_numpy().T for which in (shown.diverged > 0, shown.chosen)
        )
        axes.plot(*lost, "x", color=colour, ms=7, mew=1.6, clip_on=False)
        axes.plot(*best, "o", zorder=4, clip_on=False, mec=colour, mfc="none", ms=11, mew=1.4)
    axes.set_ylim(whole.min() - margin, top)
    axes.set_xscale("log")
    tried = np.unique(rates.learning_rate)
    style.ticks(axes.xaxis, tried[:: math.ceil(len(tried) / 7)])
    if len(tried) == 1:
        axes.set_xlim(tried[0] / 2, tried[0] * 2)
    return _with_legend(axes, outside=True)


def curves(lines: pd.DataFrame, axis: str, label: str):
    """Training loss of one d_model against `axis`: a line a cell, the mean over its seeds at the chosen rate."""
    if axis == "flops":  # in the power of a thousand nearest to their middle
        power = 3 * round(np.log10([lines.flops.min(), lines.flops.max()]).mean() / 3)
        lines, label = lines.assign(flops=lines.flops / 10.0**power), f"{label} (10{str(power).translate(RAISED)})"
    axes = style.axes(f"d_model {lines.d_model.iloc[0]}", f"{label}, log scale", "training loss (nats/token)", SIZE)
    for line, colour, name in _by_cell(lines):
        bins = np.unique(np.geomspace(1, line.step.max() + 1, POINTS).round())
        line = line.groupby(np.digitize(line.step, bins))[[axis, "loss"]].mean()
        axes.plot(line[axis], line.loss, color=colour, label=name, linewidth=1.3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}" if axis == "tokens" else "{x:,g}")
    axes.set_xticks([], minor=True)
    return _with_legend(axes, outside=True)


def _by_cell(rows: pd.DataFrame) -> list[tuple]:
    """Of each cell its rows, colour and label."""
    groups = list(rows.groupby(["num_heads", "series", "num_layers"]))
    return [
        (line, style.ordered(place, len(groups)), _joined(f"h = {heads}", series, line.depth.iloc[0]))
        for place, ((heads, series, _), line) in enumerate(groups)
    ]


def emergence(lines: pd.DataFrame, cell: str):
    """A line a role against the training step: its effect, and below it what its targets cost.

    Args:
      lines: role, step, effect, linked (nats; nan where targets have no loss of their own).
    """
    from matplotlib.figure import Figure

    figure, ways = Figure(figsize=SIZE, layout="constrained"), [("effect", "effect"), ("linked", "nats")]
    ways = ways if lines.linked.notna().any() else ways[:1]
    panels = figure.subplots(len(ways), sharex=True, squeeze=False)[:, 0]
    for axes, (column, label) in zip(panels, ways, strict=True):
        for place, (role, line) in enumerate(lines.groupby("role", sort=False)):
            look = {"color": style.category(place), "marker": style.marker(place), "markersize": 4}
            axes.plot(line.step, line[column], label=role if column == "effect" else None, **look)
        axes.set_ylabel(label)
        axes.set_xscale("log")
    panels[0].set_title(f"{cell}: effects" + (", and loss of their targets" if len(ways) > 1 else ""))
    panels[-1].set_xlabel("training step (log scale)")
    shown = []
    for step in sorted(lines.step.unique()):
        shown += [step] if not shown or step > 1.4 * shown[-1] else []
    style.ticks(panels[-1].xaxis, shown)
    return _with_legend(panels[0])


def forest(rows: list[dict], margin: float, title: str):
    """Effects with their intervals, a row each, the first in bold with its seeds; the margin as a band about 0."""
    axes = style.axes(title, "difference in loss (nats/token)", "", (6.2, 1.3 + 0.36 * len(rows)))
    axes.axvspan(-margin, margin, color=style.GRID, alpha=0.6, linewidth=0, label=f"within ± {margin:g}")
    axes.axvline(0, color=style.MUTED, linewidth=0.8)
    for place, row in enumerate(rows):
        colour, width = (style.MUTED, 1.1) if place else (style.category(0), 2.2)
        ends = [[row["effect"] - row["low"]], [row["high"] - row["effect"]]]
        axes.errorbar([row["effect"]], [place], xerr=ends, color=colour, fmt="o", linewidth=width, capsize=3)
        at = row.get("seeds", ())
        name = "a fresh seed" if at else None
        axes.plot(at, [place - 0.28] * len(at), "o", color=colour, mfc="none", markersize=4, label=name)
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.7)
    return _with_legend(axes)


def cost(cells: pd.DataFrame, axis: str, values: pd.Series, title: str, label: str):
    """`values` of the cells, above 0, against `axis`, num_heads or, for one number of heads, d_k: a line a d_model."""
    from matplotlib.ticker import MaxNLocator

    axes = style.axes(title, LABELS[axis], f"{label}, log scale", SIZE)
    series = cells.series if axis == "num_heads" else ("h = " + cells.num_heads.astype(str))
    lines = cells.groupby([cells.d_model, series, cells.num_layers], sort=False)
    for index, ((d_model, fixed, _), line) in enumerate(lines):
        name = _joined(f"d_model {d_model}", fixed, line.depth.iloc[0])
        colour, mark = style.category(index), style.marker(index)
        axes.plot(line[axis], values[line.index], color=colour, marker=mark, markersize=6, label=name)
    low, high = values.min() / 1.3, values.max() * 1.3
    axes.set_yscale("log")
    # Three round values or more between the ends: 1, 2, 5 of each decade, or even steps of one.
    ticks = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high))) for m in (1, 2, 5)]
    if high < 10 * low:
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    style.ticks(axes.yaxis, [float(tick) for tick in ticks if low <= tick <= high])
    return _finished(axes, cells[axis], (low, high))


def _finished(axes, values: pd.Series, bounds: tuple[float, float]):
    """The figure of `axes` with a log2 axis that has a tick at each value that occurs, and a legend."""
    at = sorted(map(int, values.unique()))
    axes.set_ylim(*bounds)
    axes.set_xscale("log", base=2)
    style.ticks(axes.xaxis, at)
    axes.set_xlim(at[0] / 1.5, at[-1] * 1.5)
    return _with_legend(axes)


def _with_seeds(axes, rows, x, y, colour, marker, label, bounds, shift=0.0) -> None:
    """A line through the means with their intervals, and a mark a seed beside each.

    A hollow mark, or a cross at the upper edge for a run that diverged; a mean that such a run lifts out of the frame
    is not drawn. `shift` moves all of it sideways, in powers of two."""
    seeds = sorted(set(zip(rows.init_seed, rows.data_seed, strict=True)))
    spread, means = min(0.13, 0.5 / len(seeds)), []
    for place, cell in rows.groupby(x):
        at = place * 2**shift
        means.append((at, *intervals.over_seeds(cell[y].to_numpy())[:3]))
        for row in cell.itertuples():
            aside = spread * (seeds.index((row.init_seed, row.data_seed)) - (len(seeds) - 1) / 2)
            aside += spread / 2 if len(seeds) % 2 else 0  # not under the mean's own mark
            mark, size, width = ("x", 7, 1.6) if row.status == "diverged" else ("o", 4.5, 1.0)
            value = min(max(getattr(row, y), bounds[0]), bounds[1])
            look = {"color": colour, "mfc": "none", "ms": size, "mew": width, "zorder": 4}
            named = gid(row.cell, row.init_seed, row.data_seed)
            axes.plot([at * 2**aside], [value], mark, clip_on=False, in_layout=False, gid=named, **look)
    at, mean, low, high = np.array(means).T
    mean = np.where((mean < bounds[0]) | (mean > bounds[1]), np.nan, mean)
    axes.plot(at, mean, color=colour, marker=marker, markersize=6.5, label=label, zorder=3)
    known = np.isfinite(low) & np.isfinite(mean)
    if known.any():
        below, above = (mean - low)[known], (high - mean)[known]
        axes.errorbar(at[known], mean[known], [below, above], color=colour, fmt="none", linewidth=1.1, capsize=3)


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _with_legend(axes, outside: bool = False):
    """The figure of `axes` with a legend: beside them for a line a cell, else below, where it covers no data, in one
    column where two are too wide."""
    handles, labels = axes.get_legend_handles_labels()
    where = "outside right upper" if outside else "outside lower center"
    half = math.ceil(len(labels) / 2)
    letters = sum(max(map(len, column), default=0) for column in (labels[:half], labels[half:]))
    columns = math.ceil(len(labels) / 14) if outside else 2 if letters <= LEGEND else 1
    axes.figure.legend(handles, labels, loc=where, ncols=columns, handlelength=1.4)
    return axes.figure
