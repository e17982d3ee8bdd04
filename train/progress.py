"""What a person sees while a study runs: a live line on a terminal, plain lines elsewhere."""

import time

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

PLAIN_SECONDS = 5.0  # between two plain lines of one cell


class StudyProgress:
    """Cells done, and step, loss and time left of the cell at work; use as a context manager."""

    def __init__(self, console: Console, steps: int):
        self._console, self._steps, self._expected = console, steps, 0
        self._live = console.is_terminal
        whole = Column(no_wrap=True, min_width=7)
        self._bars = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(min_width=4, max_width=24, ratio=1)),
            MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[note]}", table_column=whole),
            TimeElapsedColumn(table_column=whole),
            TextColumn("left", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=whole),
            console=console,
            disable=not self._live,
            transient=True,
        )
        self._cells = self._bars.add_task("cells", total=0, note="")
        self._steps_bar = self._bars.add_task("steps", total=steps, note="", visible=False)
        self._cell, self._said = "", 0.0

    def __enter__(self):
        self._bars.start()
        return self

    def __exit__(self, *_):
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        prefix = f"{self._cell}: " if self._cell else ""
        self._console.print(prefix + text, highlight=False, soft_wrap=True, markup=False)

    def expect(self, cells: int) -> None:
        """So many more cells are to `end`."""
        self._expected += cells
        self._bars.update(self._cells, total=self._expected)

    def begin(self, cell: str, what: str) -> None:
        """`cell` is at work on `what` ('compiling', 'evaluating', ...)."""
        self._cell = cell
        self._bars.update(self._cells, description=f"cells  {cell} {what}")
        self._bars.reset(self._steps_bar, total=self._steps, visible=False, note="")
        if not self._live:
            self.say(what)

    def steps(self, step: int, losses: np.ndarray) -> None:
        """`step` steps are done; `losses` holds each replica's latest (nats/token)."""
        finite = losses[np.isfinite(losses)]
        self._bars.update(self._cells, description=f"cells  {self._cell} training")
        note = f"loss {finite.min():.3f}-{finite.max():.3f}" if finite.size else "all replicas diverged"
        self._bars.update(self._steps_bar, completed=step, visible=True, note=note)
        now = time.monotonic()
        if not self._live and (now - self._said > PLAIN_SECONDS or step == self._steps):
            self._said = now
            self.say(f"step {step}/{self._steps}, {note} nats/token")

    def end(self, cell: str, state: str, reason: str) -> None:
        """`cell` is finished, with this state and reason."""
        self._bars.advance(self._cells)
        self._cell = ""
        if state not in ("done", "tuned"):
            self.say(f"{cell}: {state}: {reason}")
