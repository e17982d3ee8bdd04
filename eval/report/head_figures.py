"""Figures of heads: the graph of what builds on what, and how far runs agree."""

import numpy as np
import pandas as pd

from eval.heads.composition.factorial import Runs
from eval.report import style

Head = tuple[int, int]


def graph(nodes: dict[Head, list[str]], edges: list[dict], title: str):
    """Heads as points by layer, those of a role named, and edges between them, as wide as what they carry.

    Args:
      nodes: the roles of each head, (layer, head), that bears one.
      edges: `from`, `to`, `kind`, and `rise` in nats/token.
    """
    heads = sorted({*nodes, *(edge[end] for edge in edges for end in ("from", "to"))})
    layers = sorted({layer for layer, _ in heads})
    most = max([sum(layer == own for own, _ in heads) for layer in layers], default=1)
    axes = style.axes(title, "layer", "", (2.2 + 2.4 * max(1, len(layers)), 1.4 + 0.42 * most))
    at = {}
    for layer in layers:
        mine = [head for head in heads if head[0] == layer]
        for place, head in enumerate(mine):
            at[head] = layer, -(place + (most - len(mine)) / 2)
    widest = max((edge["rise"] for edge in edges), default=1.0)
    kinds = sorted({edge["kind"] for edge in edges})
    for edge in edges:
        (x, y), (to_x, to_y) = at[edge["from"]], at[edge["to"]]
        colour, width = style.category(kinds.index(edge["kind"])), 0.8 + 3 * edge["rise"] / widest
        axes.plot([x, to_x], [y, to_y], color=colour, linewidth=width, zorder=1)
    for kind in kinds:
        axes.plot([], [], color=style.category(kinds.index(kind)), linewidth=2, label=f"read for its {kind}")
    for head, (x, y) in at.items():
        axes.plot([x], [y], "o", color=style.INK, mfc=style.PAPER, ms=8, zorder=2)
        words = ", ".join([f"{head[0]}.{head[1]}", *nodes.get(head, ())])
        behind = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.6}
        axes.annotate(words, (x, y), (0, 8), textcoords="offset points", ha="center", fontsize=8, bbox=behind)
    style.ticks(axes.xaxis, layers)
    axes.set_xlim(min(layers, default=0) - 0.6, max(layers, default=1) + 0.6)
    axes.set_ylim(-most - 0.1, 0.9)
    axes.set_yticks([])
    axes.grid(False)
    if kinds:
        axes.figure.legend(loc="outside lower center", ncols=len(kinds))
    return axes.figure


def agreement(runs: Runs, title: str):
    """1 - `apart` of each two of the runs that were drawn, in the order of init seeds and then of data seeds."""
    order = [place for place in np.lexsort((runs.data, runs.init)) if not runs.again[place]]
    agree = 1 - runs.apart[np.ix_(order, order)]
    np.fill_diagonal(agree, np.nan)
    axes = style.axes(title, "run, by init seed, then data seed", "", (4.4, 4.2))
    image = axes.imshow(agree, cmap="viridis", interpolation="none")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="agreement")
    inits = runs.init[order]
    starts = np.flatnonzero(np.r_[True, inits[1:] != inits[:-1]])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(starts - 0.5, [f"init {inits[start]}" for start in starts], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.grid(False)
    return axes.figure


def shares(rows: pd.DataFrame):
    """Shares with their intervals, a group a part and a colour a way to compare heads.

    Args:
      rows: `part`, `label`, `share`, `low`, `high`; the last two may be missing.
    """
    parts, labels = list(dict.fromkeys(rows.part)), list(dict.fromkeys(rows.label))
    axes = style.axes("Shares, bars: 95 %, both seeds resampled", "", "share", (4.4, 3.4))
    for place, label in enumerate(labels):
        mine = rows[rows.label == label].astype({"low": float, "high": float})
        x = np.array([parts.index(part) for part in mine.part]) + 0.18 * (place - (len(labels) - 1) / 2)
        colour, known = style.category(place), mine.low.notna().to_numpy()
        axes.plot(x, mine.share, style.marker(place), color=colour, ms=6, label=f"heads {label}")
        if known.any():
            ends = [(mine.share - mine.low)[known], (mine.high - mine.share)[known]]
            axes.errorbar(x[known], mine.share[known], ends, color=colour, fmt="none", capsize=3, linewidth=1.2)
    axes.axhline(0, color=style.INK, linewidth=0.8)
    axes.set_xticks(range(len(parts)), parts)
    axes.figure.legend(loc="outside lower center", ncols=len(labels))
    return axes.figure


def steps(rows: pd.DataFrame):
    """Shares against training steps, a line a part and way to compare heads.

    Args:
      rows: `step`, `part`, `label`, `share`.
    """
    axes = style.axes("Over training", "step", "share", (4.4, 3.4))
    for place, ((part, label), line) in enumerate(rows.groupby(["part", "label"], sort=False)):
        colour, mark = style.category(place), style.marker(place)
        axes.plot(line.step, line.share, color=colour, marker=mark, ms=5, label=f"{part}, heads {label}")
    axes.axhline(0, color=style.INK, linewidth=0.8)
    axes.figure.legend(loc="outside lower center", ncols=2)
    return axes.figure
