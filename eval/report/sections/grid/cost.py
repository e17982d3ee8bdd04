"""What each cell's size is, and what its steps cost in time and memory."""

import pandas as pd

from eval.judge.evidence import Evidence
from eval.report import figures as plots
from eval.report.style import Drawn

COSTS = (  # column, what to divide it by, title, axis
    ("step_ms", 1, "Time of a step", "step of one run (ms)"),
    ("peak_memory_bytes", 2**20, "Memory", "a cell's program (MiB)"),
)


def context(evidence: Evidence, verdicts) -> dict | None:
    if evidence.cells.empty:
        return None
    cells, keys = evidence.losses.cells, ["d_model", "series", "num_layers"]
    single = cells[cells.num_heads == 1].set_index(keys).step_ms.to_dict()
    path, keys = evidence.workdir.results / "prices.csv", ["cell", "path", "attention"]
    timed = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*keys, "step_ms", "memory_bytes"])
    prices = timed.groupby(keys, as_index=False, sort=False)[["step_ms", "memory_bytes"]].median()  # over the launches
    return {"budget_notes": budget_notes(cells), "prices": prices.to_dict("records"), "single_ms": single}


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    cells, made = evidence.losses.cells, {}
    axis, words = next(iter(plots.varied(evidence.losses.runs).items()))
    for column, unit, title, label in COSTS:
        values = pd.to_numeric(cells[column]).dropna() / unit
        if len(values):
            figure = plots.cost(cells.loc[values.index], axis, values, title, label)
            made[f"cost_{column}"] = Drawn(figure, f"{title}: {label} against {words}.")
    return made


def budget_notes(cells: pd.DataFrame) -> list[str]:
    """What the sizes have in common, in words."""
    least, most = cells.params_non_embedding.agg(["min", "max"])
    by_d_model = cells.groupby("d_model").params_attention
    each = ", ".join(f"{count:,} at d_model {d_model}" for d_model, count in by_d_model.first().items())
    alike = f"are identical over h within a d_model: {each}"
    said = alike if (by_d_model.nunique() == 1).all() else "differ within a d_model, because h * d_k does"
    return [
        f"Non-embedding parameters of all cells agree within {most / least - 1:.3%} ({least:,} to {most:,}).",
        f"Attention parameters {said}.",
    ]
