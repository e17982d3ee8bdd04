"""Training loss at the chosen rates, against tokens, time and FLOPs."""

import pandas as pd

from eval.judge.evidence import Evidence
from eval.report import figures as plots
from eval.report.style import Drawn

CURVES = {"tokens": "training tokens", "seconds": "measured time (s)", "flops": "training FLOPs"}


def context(evidence: Evidence, verdicts) -> dict | None:
    return {} if len(evidence.cells) and len(curves(evidence)) else None


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
    a_step, cells = evidence.config.train.batch_size * evidence.config.data.seq_len, evidence.losses.cells
    logged = pd.concat({name: mean.reset_index() for name, mean in evidence.curves.items()}, names=["cell"])
    columns = ["cell", *plots.SHAPE, "flops_per_token", "step_ms"]
    by_step = logged.reset_index("cell").astype({"step": int}).merge(cells[columns], on="cell")
    step = by_step.step + 1
    flops = 3.0 * by_step.flops_per_token * a_step  # forward, and twice as much backward
    seconds = step * pd.to_numeric(by_step.step_ms) / 1e3
    return by_step.assign(step=step, tokens=step * a_step, seconds=seconds, flops=step * flops)
