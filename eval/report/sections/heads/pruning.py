"""Loss as heads are removed, how many can go, and what training on without them brings."""

import numpy as np
import pandas as pd

from eval.judge.claims import c6_redundancy
from eval.judge.evidence import Evidence
from eval.measure.pruning import LAYER
from eval.report import style
from eval.report.style import Drawn

TABLES = ("pruning",)
TOLERANCES = (0.01, 0.05)  # of the loss
SHOWN = 0.5  # of the loss: the figure ends there


def context(evidence: Evidence, verdicts) -> dict | None:
    rows = _rows(evidence)
    if rows.empty:
        return None
    details = next((verdict.details for verdict in verdicts if verdict.id == c6_redundancy.ID), {})
    return {"removable": removable(rows), "layers": layers(rows), "recovered": recovered(details.get("rises", []))}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    rows = _rows(evidence)
    rows = rows[~rows.order.str.startswith(LAYER)]
    return {
        f"pruning_{cell}": Drawn(
            _figure(cell, mine), f"Rise of the test loss as heads of {cell} are removed, by order."
        )
        for cell, mine in rows.groupby("cell", sort=False)
        if mine.heads.iloc[0] > 1
    }


def _rows(evidence: Evidence) -> pd.DataFrame:
    """Points of the judged runs on test, with the `share` removed and the `relative` rise; draws of a random order are
    one `kind`."""
    path = evidence.workdir.results / "pruning.parquet"
    if not path.exists() or evidence.cells.empty:
        return pd.DataFrame()
    rows = pd.read_parquet(path)
    rows = rows[rows.split == "test"].merge(evidence.cells[["cell", "learning_rate", "num_heads", "d_k"]])
    kind = rows.order.where(rows.order.str.startswith(LAYER), rows.order.str.partition(" ")[0])
    relative = rows.rise / (rows.loss - rows.rise)
    return rows.assign(kind=kind, share=rows.removed / rows.heads, relative=relative)


def removable(rows: pd.DataFrame) -> list[dict]:
    """By cell and order the largest share of heads whose removal, and of every smaller share on the way, costs at most
    each of TOLERANCES: the median over runs. L0 gates have a point a strength, so theirs is the largest that does."""
    found = []
    rows = rows[~rows.order.str.startswith(LAYER)]
    for (cell, kind), mine in rows.groupby(["cell", "kind"], sort=False):
        shares = {tolerance: [] for tolerance in TOLERANCES}
        for _, curve in mine.groupby(["replica"] if kind == "l0" else ["replica", "order"]):
            curve = curve.sort_values("share")
            for tolerance, each in shares.items():
                within = (curve.relative <= tolerance).to_numpy()
                within = within if kind == "l0" else np.minimum.accumulate(within)
                each.append(curve.share[within].max())
        first = mine.iloc[0]
        about = {"cell": cell, "num_heads": first.num_heads, "d_k": first.d_k, "order": kind, "heads": first.heads}
        found.append({**about, "runs": mine.replica.nunique(), "shares": [np.median(each) for each in shares.values()]})
    return found


def layers(rows: pd.DataFrame) -> list[dict]:
    """By cell, the mean relative rise with all heads of one layer off, and with all heads off."""
    whole, found = rows[rows.order.str.startswith(LAYER) & (rows.removed > 0)], []
    for cell, mine in rows.groupby("cell", sort=False):
        own = whole[whole.cell == cell].groupby("order", sort=False).relative.mean()
        every = mine[(mine.removed == mine.heads) & ~mine.order.str.startswith(LAYER)].relative.mean()
        found.append({"cell": cell, "layers": own.tolist(), "all": every})
    return found


def recovered(rises: list[dict]) -> list[dict]:
    """By cell, order and share, the mean and the range over seeds of the rise after training on."""
    if not rises:
        return []
    table = pd.DataFrame(rises)
    grouped = table.groupby(["cell", "what", "order", "removed", "heads"], sort=False).rise
    return grouped.agg(["mean", "min", "max", "size"]).reset_index().to_dict("records")


def _figure(cell: str, rows: pd.DataFrame):
    axes = style.axes(cell, "share of heads removed", "rise of the test loss (share of it)", (5.2, 3.7))
    for place, (kind, mine) in enumerate(rows.groupby("kind", sort=False)):
        curve = mine.groupby("share").relative.median()
        form = {"linestyle": "none"} if kind == "l0" else {}
        colour, marker = style.category(place), style.marker(place)
        axes.plot(curve.index, curve, color=colour, marker=marker, markersize=3, label=kind.replace("_", " "), **form)
    axes.set_ylim(-0.02, min(SHOWN, 1.05 * max(rows.relative.max(), 0.02)))
    axes.legend()
    return axes.figure
