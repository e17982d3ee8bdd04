"""What a person sees while a study runs: a live line a worker on a terminal, plain lines elsewhere."""

import time

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

PLAIN_SECONDS = 5.0  # between two plain lines of one cell


class Line:
    """The cell that one process works on."""

    def __init__(self, study: "StudyProgress"):
        self._study, self._cell, self._said = study, "", 0.0
        self._bar = study.bars.add_task("", total=study.num_steps, note="", visible=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        prefix = f"{self._cell}: " if self._cell else ""
        self._study.console.print(prefix + text, soft_wrap=True, markup=False)

    def begin(self, cell: str, what: str) -> None:
        """The process is at work on `what` ('compiling', 'evaluating', ...) of `cell`."""
        self._cell = cell
        self._study.bars.reset(self._bar, description=f"{cell} {what}", visible=True, note="")
        if not self._study.live:
            self.say(what)

    def steps(self, step: int, losses: np.ndarray | list[float]) -> None:
        """`step` steps are done; `losses` holds each replica's latest (nats/token)."""
        losses = np.asarray(losses, np.float32)
        finite = losses[np.isfinite(losses)]
        note = f"loss {finite.min():.3f}-{finite.max():.3f}" if finite.size else "all replicas diverged"
        description, steps = f"{self._cell} training", self._study.num_steps
        self._study.bars.update(self._bar, description=description, completed=step, note=note)
        now = time.monotonic()
        if not self._study.live and (now - self._said > PLAIN_SECONDS or step == steps):
            self._said = now
            self.say(f"step {step}/{steps}, {note} nats/token")

    def end(self, cell: str, state: str, reason: str) -> None:
        """`cell` is finished, with this state and reason."""
        self._study.ended()
        self._study.bars.update(self._bar, visible=False)
        self._cell = ""
        if state not in ("done", "tuned"):
            self.say(f"{cell}: {state}: {reason}")


class StudyProgress(Line):
    """Cells done, and step, loss and time left of each cell at work, of which this process's is a Line of its own; use
    as a context manager."""

    def __init__(self, console: Console, steps: int):
        self.console, self.num_steps, self._expected = console, steps, 0
        self.live = console.is_terminal
        whole = Column(no_wrap=True, min_width=7)
        self.bars = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(min_width=4, max_width=24, ratio=1)),
            MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[note]}", table_column=whole),
            TimeElapsedColumn(table_column=whole),
            TextColumn("left", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=whole),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self._cells = self.bars.add_task("cells", total=0, note="")
        super().__init__(self)

    def __enter__(self):
        self.bars.start()
        return self

    def close(self, *_) -> None:
        """Leaves the terminal to what comes next."""
        self.bars.stop()

    __exit__ = close

    def expect(self, cells: int) -> None:
        """So many more cells are to `end`."""
        self._expected += cells
        self.bars.update(self._cells, total=self._expected)

    def ended(self) -> None:
        """One of the expected cells did."""
        self.bars.advance(self._cells)
