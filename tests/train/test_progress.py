"""What a person sees: all cells at work on one screen, and plain lines that say whose they are elsewhere."""

import io

import numpy as np
from rich.console import Console

from train.progress import Line, StudyProgress


def shown(terminal: bool, width: int = 120) -> str:
    """Two cells at work side by side, the second further than the first."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    with StudyProgress(console, steps=100) as progress:
        progress.expect(3)
        lines = [Line(progress), Line(progress)]
        for number, line in enumerate(lines):
            line.begin(f"d064_h00{number}", "compiling")
            line.steps(100 * number, np.float32([2.5, np.nan]))
        progress.bars.refresh()
        lines[0].say("a word")
        lines[1].end("d064_h001", "failed", "a reason")
        progress.bars.refresh()
    return console.file.getvalue()


def test_all_cells_at_work_are_on_one_screen():
    last = shown(terminal=True).split("a word")[0].split("cells")[-1]
    assert "d064_h000 training" in last and "d064_h001 training" in last
    assert "0/100" in last and "100/100" in last and "loss 2.500-2.500" in last
    after = shown(terminal=True).split("cells")[-1]
    assert "1/3" in after and "d064_h000" in after and "d064_h001" not in after


def test_plain_lines_name_their_cell():
    lines = shown(terminal=False).splitlines()
    assert lines == [
        "d064_h000: compiling",
        "d064_h000: step 0/100, loss 2.500-2.500 nats/token",
        "d064_h001: compiling",
        "d064_h001: step 100/100, loss 2.500-2.500 nats/token",
        "d064_h000: a word",
        "d064_h001: failed: a reason",
    ]
