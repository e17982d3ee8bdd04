"""What a claim is: the two sides that it compares, and a verdict's form."""

import dataclasses

import pandas as pd

from eval.judge import rules


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim as decided; losses in nats/token, None where there is no number.

    Attributes:
      id, claim: as in CLAIMS.
      verdict: `supported`, `refuted` or `undecided`.
      sentence: the outcome in words, naming the corpus.
      rule: what decides.
      effect, low, high: the deciding difference and its interval at `confidence`.
      n, files: fresh seeds, and effective number of source files.
      about: `new documents` or `these documents`.
      exploratory: seeds were added after a verdict had been read more often than claims.looks allows.
      missing: what keeps the claim from being judged at all.
      parts: of each d_model: name, the two cells, effect, low, high, verdict.
      notes: what a reader must know beside the sentence.
      details: everything else that was computed, by name.
    """

    id: str
    claim: str
    verdict: str
    sentence: str
    rule: str
    margin: float
    confidence: float
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    files: float | None = None
    about: str = ""
    exploratory: bool = False
    missing: tuple[str, ...] = ()
    parts: tuple[dict, ...] = ()
    notes: tuple[str, ...] = ()
    details: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a claim compares within each group of cells: the loss of the best of `left` less that of the best of
    `right`, each side's best chosen on the tune documents with the choosing seeds.

    Attributes:
      claim: what is claimed; `faster` is filled in by how far it reaches.
      left, right: the two sides in a sentence.
      wanted: what a cell of either side has.
      supported, refuted, open: the outcome in words.
    """

    id: str
    claim: str
    left: str
    right: str
    wanted: tuple[str, str]
    supported: str
    refuted: str
    open: str

    def sides(self, cells: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """(left, right) cells of each group that one claim may compare: all else is equal within it."""
        own_width = (cells.num_heads * cells.d_k == cells.d_model).all()
        by_heads = self.id == "C2" and not own_width  # d_k varies at one number of heads
        keys = ["d_model", "num_layers", "num_heads" if by_heads else "series"]
        found = {}
        for (d_model, layers, third), group in cells.groupby(keys):
            of_left = group.num_heads == 1 if self.id == "C1" else group.d_k == 1
            name = f"d_model {d_model}" + (f", h = {third}" if by_heads else f", {third}" if third else "")
            name += f", {layers} layer{'s' if layers > 1 else ''}" if cells.num_layers.nunique() > 1 else ""
            found[name] = (group[of_left], group[~of_left])
        return found

    def pairs(self, cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
        """The two cells that are compared in each group that has both sides."""
        sides = self.sides(cells).items()
        return {name: (best(left), best(right)) for name, (left, right) in sides if len(left) and len(right)}

    def left_out(self, cells: pd.DataFrame) -> dict[str, str]:
        """The groups that lack a side, each with what it lacks."""
        sides = self.sides(cells).items()
        return {name: self.wanted[0 if left.empty else 1] for name, (left, right) in sides if left.empty or right.empty}


CLAIMS = (
    Comparison(
        "C1",
        "Several heads {faster} one at the same size",
        "h = 1",
        "the best h > 1",
        ("h = 1", "more than one head"),
        "several heads {faster} one",
        "several heads do not {faster} one",
        "it is open whether several heads {faster} one",
    ),
    Comparison(
        "C2",
        "At d_k = 1 the loss exceeds that of wider heads at the same size",
        "d_k = 1",
        "h*, the best d_k > 1",
        ("d_k = 1", "d_k above 1"),
        "the loss at d_k = 1 exceeds that at h*",
        "the loss at d_k = 1 does not exceed that at h*",
        "it is open whether the loss at d_k = 1 exceeds that at h*",
    ),
)


def best(side: pd.DataFrame) -> str:
    """The cell of lowest tune loss among rows of the cells table."""
    return rules.best(dict(zip(side.cell, side.tune_loss, strict=True)))
