"""What a study says on the terminal when it is done, or asked how far it is."""

import pathlib

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from eval.tables import training_curve
from train.grid import Cell
from train.workdir import Workdir


def show_cells(
    console: Console, workdir: Workdir, cells: tuple[Cell, ...], table: pd.DataFrame, page: pathlib.Path | None
) -> None:
    """A row a cell at its best rate, how far that is below a bigram model, how its loss fell, and the page's path."""
    if len(table):
        shown = Table(
            title="Test loss at each cell's best rate (chosen on tune), ± 95 % t interval over seeds", box=SIMPLE
        )
        for name in ("cell", "h x d_k", "rate", "nats/token", "bits/byte", "vs bigram", "ms/step", "diverged"):
            shown.add_column(name, justify="left" if name == "cell" else "right", no_wrap=True)
        for row in table.itertuples():
            half = (row.test_loss_high - row.test_loss_low) / 2
            shown.add_row(
                row.cell,
                f"{row.num_heads} x {row.d_k}",
                f"{row.learning_rate:g}",
                f"{row.test_loss:.4f}" + ("" if pd.isna(half) else f" ± {half:.4f}"),
                f"{row.test_bits_per_byte:.3f}",
                f"{-row.below_bigram:+.1%}",
                "" if pd.isna(row.step_ms) else f"{row.step_ms:.1f}",
                f"{row.diverged}/{row.replicas}",
            )
        console.print(shown)
        sizes = table.params_non_embedding
        console.print(
            f"{sizes.max():,} non-embedding parameters a cell, within {sizes.max() / sizes.min() - 1:.3%}. A bigram "
            f"model of the same bytes needs {table.bigram_bits_per_byte.iloc[0]:.3f} bits/byte.",
            highlight=False,
        )
        for line in _curves(workdir, cells):
            console.print(line, highlight=False)
    if page:
        console.print(f"Report: {page.absolute()}", highlight=False, soft_wrap=True)


def _curves(workdir: Workdir, cells: tuple[Cell, ...]) -> list[str]:
    """Training loss, averaged over a cell's replicas, at the first and over the last logged steps."""
    falls = []
    for cell in cells:
        curve = training_curve(workdir.cell(cell.name))
        if len(curve):
            means = curve.groupby("step").loss.mean()
            falls.append(f"{cell.name} {means.iloc[0]:.2f} -> {means.iloc[-5:].mean():.2f}")
    return ["Training loss (nats/token), first step -> last five logged: " + ", ".join(falls)] if falls else []


def show_status(console: Console, workdir: Workdir, cells: tuple[Cell, ...]) -> None:
    """Each cell's state and last logged step, and whether somebody is writing now."""
    writer = workdir.writer()
    shown = Table(title=str(workdir.path))
    for name in ("cell", "state", "step", "loss", "reason"):
        shown.add_column(name)
    for cell in cells:
        folder = workdir.cell(cell.name)
        status, curve = folder.status(), training_curve(folder)
        state = status["state"]
        if state == "running" and writer is None:
            state = "stopped"
        last = curve[curve.step == curve.step.max()] if len(curve) else curve
        step, loss = (f"{last.step.iloc[0] + 1}", f"{last.loss.min():.3f}") if len(last) else ("", "")
        shown.add_row(cell.name, state, step, loss, status["reason"])
    console.print(shown)
    console.print(f"Being written by {writer}." if writer else "Nobody is writing here now.", highlight=False)
