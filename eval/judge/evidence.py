"""What a study's claims are judged on: one object that every claim takes, with what is derived made when asked for."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from eval.judge import losses
from eval.judge.arms import Arm
from eval.tables import training_curve
from train import grid
from train.config import StudyConfig
from train.data import sources
from train.data.corpora import Corpus
from train.workdir import Workdir


@dataclass(frozen=True, eq=False)
class Evidence:
    """A study as it stands.

    Attributes:
      corpus: None in a study of doses, whose every run has its own language.
      cells: the cells table (eval.tables.write_tables), of some cells or all; empty before any is judged.
      doses: the runs of a study of doses (eval.doses.write_table); empty before any stage is done.
      arms: studies beside this one.
    """

    workdir: Workdir
    config: StudyConfig
    corpus: Corpus | None = None
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    doses: pd.DataFrame = field(default_factory=pd.DataFrame)
    arms: Sequence[Arm] = ()

    @property
    def confidence(self) -> float:
        """Of a verdict's interval: every reading that claims.looks allows takes its share of .05."""
        return 1 - 0.05 / self.config.claims.looks

    def cited(self, claim: str) -> list[Arm]:
        """The arms whose verdict on the claim of this ID counts here."""
        return [arm for arm in self.arms if not arm.passed_over(claim, self.corpus.fingerprint)]

    @functools.cached_property
    def losses(self) -> losses.Losses:
        """Those of the judged runs; `cells` must not be empty."""
        return losses.load(self.workdir, self.cells, self.corpus)

    @functools.cached_property
    def curves(self) -> dict[str, pd.Series]:
        """By cell, mean training loss of its judged runs by step, those aside that diverged; empty without a log."""
        runs, by_cell = self.losses.runs, {}
        for cell in self.losses.cells.cell:
            mine = runs[(runs.cell == cell) & (runs.status == "done")][["learning_rate", "init_seed", "data_seed"]]
            logged = training_curve(self.workdir.cell(cell)).reindex(columns=["replica", "step", "loss"])
            logged = logged[logged.replica.isin([grid.Replica(*run).name for run in mine.itertuples(index=False)])]
            by_cell[cell] = logged.astype({"loss": float}).groupby("step").loss.mean()
        return by_cell

    @functools.cached_property
    def planned(self) -> tuple[grid.Cell, ...]:
        """Every cell of the config, evaluated or not."""
        return grid.cells_of(self.config, sources.vocab_size(self.config.data))

    @property
    def bigram(self) -> float:
        """Test loss of the bigram model, nats/token."""
        return float(self.cells.bigram_bits_per_byte.iloc[0] * math.log(2) * self.corpus.bytes_per_token("test"))
