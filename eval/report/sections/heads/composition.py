"""What heads could read of each other, and what patching says that they do."""

import numpy as np
import pandas as pd

from eval.heads.composition import depth, scores
from eval.heads.composition.circuits import DIRECT, EDGE, RANDOM, SOURCE, TOP
from eval.heads.roles.effects import PREVIOUS
from eval.judge import over_files
from eval.judge.claims import c7_hierarchy
from eval.judge.evidence import Evidence
from eval.judge.losses import SEED
from eval.judge.single import by_model
from eval.report import head_figures
from eval.report.style import Drawn

TABLES = ("composition", "patching")
ALPHA = c7_hierarchy.ALPHA


def context(evidence: Evidence, verdicts) -> dict | None:
    composed, patched, roles = (by_model.rows(evidence, name) for name in (*TABLES, "roles"))
    if composed.empty:
        return None
    several = {cell: mine for cell, mine in composed.groupby("cell", sort=False)}
    return {
        "rates": [_rates(cell, mine) for cell, mine in several.items()],
        "circuits": [
            _circuit(cell, role, mine, _bearing(roles, cell, PREVIOUS))
            for (cell, role), mine in (patched.groupby(["cell", "role"], sort=False) if len(patched) else ())
        ],
        "depths": _depths(roles) if len(roles) else [],
        "alpha": ALPHA,
        "edge": c7_hierarchy.EDGE_MARGIN,
        "drawn": _drawn(evidence),
    }


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    drawn = _drawn(evidence)
    if drawn is None:
        return {}
    patched, roles = by_model.rows(evidence, "patching"), by_model.rows(evidence, "roles")
    mine, borne = (rows[(rows.cell == drawn["cell"]) & (rows.replica == drawn["replica"])] for rows in (patched, roles))
    edges = edges_of(mine)
    borne = borne[(borne.called == True) & (borne["head"] >= 0)]  # noqa: E712
    nodes: dict[tuple[int, int], list[str]] = {}
    for row in borne.itertuples():
        nodes.setdefault((int(row.layer), int(row.head)), []).append(row.role)
    figure = head_figures.graph(nodes, edges, f"{drawn['cell']}, {drawn['replica']}")
    words = "Heads that bear a role, by layer, and the edges between heads that patching confirmed."
    return {"graph_heads": Drawn(figure, words)}


def edges_of(patched: pd.DataFrame) -> list[dict]:
    """The single edges of one replica that are confirmed: lower limit of the rise above EDGE_MARGIN, t over files."""
    found = []
    for (role, kind, source, reader), rows in patched[patched.what == EDGE].groupby(
        ["role", "kind", "sources", "reader"]
    ):
        rise = over_files.per_token(rows.rise.to_numpy(), rows.tokens.to_numpy()) if len(rows) > 1 else None
        if rise is not None and rise.low(0.05) > c7_hierarchy.EDGE_MARGIN:
            ends = [tuple(map(int, head.split("."))) for head in (source, reader)]
            found.append({"role": role, "kind": kind, "from": ends[0], "to": ends[1], "rise": float(rise.mean)})
    return found


def _drawn(evidence: Evidence) -> dict | None:
    """The replica whose graph is drawn: the first of the answering cell that was patched."""
    patched = by_model.rows(evidence, "patching")
    mine = patched[patched.cell == by_model.primary(evidence)] if len(patched) else patched
    if mine.empty:
        return None
    first = mine.sort_values(SEED, kind="stable").iloc[0]
    return {"cell": first.cell, "replica": first.replica, "edges": len(edges_of(mine[mine.replica == first.replica]))}


def _rates(cell: str, rows: pd.DataFrame) -> dict:
    """Shares of pairs that pass, the mean over models, and how many there are of a model."""
    passes = rows[rows.p.notna()].assign(passes=lambda each: each.p < ALPHA)
    share = lambda mine: float(mine.groupby("replica").passes.mean().mean()) if len(mine) else float("nan")  # noqa: E731
    later = passes[passes.place == scores.LATER]
    return {
        "cell": cell,
        "models": rows.replica.nunique(),
        "pairs": len(later) // max(1, later.replica.nunique()),
        **{kind: share(later[later.kind == kind]) for kind in scores.KINDS},
        "same": share(passes[passes.place == scores.SAME]),
        "earlier": share(passes[passes.place == scores.EARLIER]),
    }


def _bearing(roles: pd.DataFrame, cell: str, role: str) -> set[tuple[str, int, int]]:
    """The heads of a cell, (replica, layer, head), that are called by a role."""
    if roles.empty:
        return set()
    mine = roles[(roles.cell == cell) & (roles.role == role) & (roles.called == True)]  # noqa: E712
    return set(zip(mine.replica, mine.layer, mine["head"], strict=True))


def _circuit(cell: str, role: str, rows: pd.DataFrame, previous: set) -> dict:
    """Medians over models of nats/token lost under each patch at the input that decides, and of confirmed edges; and in
    how many models such an edge comes from one of the heads `previous`."""
    means = rows.groupby(["replica", "what", "kind", "sources", "reader"])[["rise", "tokens"]].sum()
    means = (means.rise / means.tokens).rename("nats").reset_index()
    deciding = rows[rows.decides.astype(bool)].groupby("replica").kind.first()
    means = means[means.kind == means.replica.map(deciding)]
    largest = means.groupby(["what", "replica"]).nats.max()
    median = lambda what: float(largest[what].median()) if what in largest.index.get_level_values(0) else np.nan  # noqa: E731
    edges = {replica: edges_of(mine) for replica, mine in rows.groupby("replica")}
    reads = [any((replica, *edge["from"]) in previous for edge in found) for replica, found in edges.items()]
    return {
        "cell": cell,
        "role": role,
        "models": rows.replica.nunique(),
        "inputs": ", ".join(f"{kind} ({count})" for kind, count in deciding.value_counts().items()),
        **{name: median(what) for name, what in (("top", TOP), ("random", RANDOM), ("direct", DIRECT))},
        **{name: median(what) for name, what in (("source", SOURCE), ("one", EDGE))},
        "confirmed": float(np.median([len(found) for found in edges.values()])),
        "previous": sum(reads),
    }


def _depths(roles: pd.DataFrame) -> list[dict]:
    """Of cells deep enough, where roles lie and how many pairs stand in the order written beforehand."""
    deep = roles[(roles.num_layers >= depth.LEAST_LAYERS) & (roles.called == True) & (roles["head"] >= 0)]  # noqa: E712
    found = []
    for cell, mine in deep.groupby("cell", sort=False):
        layers = [depth.mean_layers(own) for _, own in mine.groupby("replica")]
        counts = [depth.in_order(own) for own in layers]
        means = pd.concat(layers).groupby(level=0).mean()
        pairs = sum(count for _, count in counts)
        words = ", ".join(f"{role} {layer:.1f}" for role, layer in means.sort_values().items())
        found.append({"cell": cell, "layers": words, "right": sum(right for right, _ in counts), "pairs": pairs})
    return found
