"""What is compared: within each group of cells the best of one side with the best of the other."""

import dataclasses

import pandas as pd

from eval.judge import rules


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The loss of the best cell of `left` less that of the best of `right`, within each group of cells that differ in
    nothing else; each side's best is chosen on the tune documents with the choosing seeds.

    Attributes:
      column: of the cells table, `num_heads` or `d_k`; it is 1 on the left side.
      left, right: the two sides in a sentence.
      wanted: what a cell of either side has.
    """

    column: str
    left: str
    right: str
    wanted: tuple[str, str]

    def sides(self, cells: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """(left, right) cells of each group that may be compared: all else is equal within it."""
        own_width = (cells.num_heads * cells.d_k == cells.d_model).all()
        by_heads = self.column == "d_k" and not own_width  # d_k varies at one number of heads
        keys = ["d_model", "num_layers", "num_heads" if by_heads else "series"]
        groups, depths = {}, cells.num_layers.nunique() > 1
        for (d_model, layers, third), group in cells.groupby(keys):
            of_left = group[self.column] == 1
            name = f"d_model {d_model}" + (f", h = {third}" if by_heads else f", {third}" if third else "")
            name += f", {layers} layer{'s' if layers > 1 else ''}" if depths else ""
            groups[name] = (group[of_left], group[~of_left])
        return groups

    def pairs(self, cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
        """The two cells that are compared in each group that has both sides."""
        sides = self.sides(cells).items()
        return {name: (best(left), best(right)) for name, (left, right) in sides if len(left) and len(right)}

    def left_out(self, cells: pd.DataFrame) -> list[str]:
        """The groups that lack a side, each with what it lacks, in words."""
        return [
            f"{name} has no cell with {self.wanted[0 if left.empty else 1]}"
            for name, (left, right) in self.sides(cells).items()
            if left.empty or right.empty
        ]


HEADS = Comparison("num_heads", "h = 1", "the best h > 1", ("h = 1", "more than one head"))
WIDTHS = Comparison("d_k", "d_k = 1", "h*, the best d_k > 1", ("d_k = 1", "d_k above 1"))


def best(side: pd.DataFrame) -> str:
    """The cell of lowest tune loss among rows of the cells table."""
    return rules.best(dict(zip(side.cell, side.tune_loss, strict=True)))
