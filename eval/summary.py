"""What a study says on the terminal when it is done, or asked how far it is."""

import pathlib
from collections.abc import Iterable

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.judge.verdict import Verdict
from eval.tables import excess, training_curve
from train.workdir import Workdir


def show_cells(console: Console, workdir: Workdir, table: pd.DataFrame) -> None:
    """A row a cell at its best rate, its distance to a bigram model, and how its training loss fell."""
    if table.empty:
        return
    named = ("cell", "rate", "nats/token", "bits/byte", "vs bigram", "training loss", "ms/step")
    shown = _table("Test loss at each cell's best rate, ± 95 % t interval over seeds", named)
    for row in table.itertuples():
        curve = training_curve(workdir.cell(row.cell))  # of the cell's replicas, at the first and the last five steps
        means = curve.groupby("step").loss.mean() if len(curve) else ()
        half = (row.test_loss_high - row.test_loss_low) / 2
        shown.add_row(
            row.cell,
            f"{row.learning_rate:g}",
            f"{row.test_loss:.3f}" + ("" if pd.isna(half) else f" ± {half:.3f}"),
            f"{row.test_bits_per_byte:.3f}",
            f"{-row.below_bigram:+.1%}",
            f"{means.iloc[0]:.2f} -> {means.iloc[-5:].mean():.2f}" if len(means) else "",
            "" if pd.isna(row.step_ms) else f"{row.step_ms:.1f}",
        )
    console.print(shown)
    sizes = table.params_non_embedding
    console.print(
        f"{sizes.max():,} non-embedding parameters a cell, within {sizes.max() / sizes.min() - 1:.3%}; "
        f"{table.diverged.sum()} of {table.replicas.sum()} replicas diverged. A bigram model needs "
        f"{table.bigram_bits_per_byte.iloc[0]:.3f} bits/byte.",
    )
    show_relations(console, workdir, table)


def show_relations(console: Console, workdir: Workdir, table: pd.DataFrame) -> None:
    """Nothing where the text has no known floor; else a row a relation and a column a cell."""
    above_floor = excess(workdir, table)
    shown = _table("Test loss above its floor, nats a bit (a token)", ["relation", *above_floor.index])
    for relation, values in above_floor.items():
        shown.add_row(relation, *("" if pd.isna(value) else f"{value:.3f}" for value in values))
    if len(above_floor):
        console.print(shown)


def _table(title: str, columns: Iterable[str]) -> Table:
    shown = Table(title=title, box=SIMPLE_HEAD, padding=0)
    for place, name in enumerate(columns):
        shown.add_column(name, justify="right" if place else "left", no_wrap=True)
    return shown


def show_verdicts(console: Console, verdicts: list[Verdict], page: pathlib.Path | None) -> None:
    """A paragraph a claim, and the page's path."""
    colours = {"supported": "green", "refuted": "red", "undecided": "yellow"}
    for verdict in verdicts:
        label = "exploratory, " * verdict.exploratory + verdict.verdict
        console.print(f"[bold]{verdict.id}[/] [{colours[verdict.verdict]}]{label}[/] ", end="")
        console.print(verdict.sentence, markup=False)
    if page:
        console.print(f"Report: {page.absolute()}", soft_wrap=True, markup=False)


def show_status(console: Console, workdir: Workdir, names: list[str]) -> None:
    """Each cell's state and last logged step, and whether somebody is writing now."""
    writer = workdir.writer()
    shown = Table("cell", "state", "step", "loss", "reason", title=escape(str(workdir.path)))
    for name in names:
        status, curve = workdir.cell(name).status(), training_curve(workdir.cell(name))
        state = "stopped" if status["state"] == "running" and writer is None else status["state"]
        last = curve[curve.step == curve.step.max()] if len(curve) else curve
        step, loss = (f"{last.step.iloc[0] + 1}", f"{last.loss.min():.3f}") if len(last) else ("", "")
        shown.add_row(name, state, step, loss, escape(status["reason"]))
    console.print(shown)
    console.print(f"Being written by {escape(writer)}." if writer else "Nobody is writing here now.")
