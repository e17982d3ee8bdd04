"""Training loss at the chosen rates, against tokens, time and FLOPs."""

import math

import pandas as pd

from eval.judge.evidence import Evidence
from eval.report import figures as plots
from eval.report.style import Drawn

CURVES = {"tokens": "training tokens", "seconds": "measured time (s)", "flops": "training FLOPs"}


def context(evidence: Evidence, verdicts) -> dict | None:
    if evidence.cells.empty:
        return None
    logged = curves(evidence)
    return {"d_models": logged.d_model.unique()} if len(logged) else None


def figures(evidence: Evidence, verdicts) -> dict[str, Drawn]:
    return {
        f"curves_d{d_model:03d}_{axis}": Drawn(
            plots.curves(mine, axis, label),
            f"Training loss against {label}, one line for each cell of d_model {d_model}.",
        )
        for d_model, mine in curves(evidence).groupby("d_model")
        for axis, label in CURVES.items()
        if mine[axis].notna().all()
    }


def curves(evidence: Evidence) -> pd.DataFrame:
    """Training loss at each cell's chosen rate, averaged over its seeds: cell, plots.SHAPE, step, tokens, seconds (by
    the timing pass), flops (of training), loss. A diverged run is left out."""
    frames, config = [], evidence.config
    a_step = config.train.batch_size * config.data.seq_len
    for row in evidence.losses.cells.itertuples():
        mean = evidence.curves[row.cell].reset_index()
        if len(mean):
            shape = {name: getattr(row, name) for name in ("cell", *plots.SHAPE)}
            step = mean.step + 1
            flops = 3.0 * row.flops_per_token * a_step  # forward, and twice as much backward
            axes = {"tokens": step * a_step, "seconds": step * (row.step_ms or math.nan) / 1e3}
            frames.append(mean.assign(**shape, step=step, **axes, flops=step * flops))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
