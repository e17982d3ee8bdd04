"""The losses that a study judges, by cell, seed and source file: what every comparison is made of."""

import dataclasses
import functools

import pandas as pd

from train import grid
from train.data.corpora import Corpus, unigram_entropy
from train.workdir import Workdir

SEED = ["init_seed", "data_seed"]


@dataclasses.dataclass(frozen=True)
class Losses:
    """The judged runs at each cell's chosen rate. Losses are in nats, a diverged run's the unigram entropy a token.

    Attributes:
      cells: the cells table in the order d_model, num_heads, d_k, num_layers, with `series`: '' where every cell of the
        d_model has num_heads * d_k = d_model, else 'd_k = <d_k>', since heads are compared at one d_k then; and
        `depth`: '' or, of several, '<num_layers> layers'.
      runs: their `test` rows of replicas.parquet, one a seed, with `series`, `depth` and `counted`, the loss in
        nats/token.
      choosing: the `tune` rows of every run that chose a rate, with `series`, `depth` and `counted`.
      documents: their `test` rows of documents.parquet, with `file`, the source file, and `counted`, the summed loss.
      unigram: entropy of the training split, nats/token.
      apart: whether no file of `test` is in `train` too, as where few files are cut into blocks.
    """

    cells: pd.DataFrame
    runs: pd.DataFrame
    choosing: pd.DataFrame
    documents: pd.DataFrame
    unigram: float
    apart: bool

    def sums(self, cell: str) -> pd.DataFrame:
        """Summed `test` loss of each seed (rows) on each file (columns)."""
        mine = self.documents[self.documents.cell == cell]
        return mine.pivot_table(index=SEED, columns="file", values="counted", aggfunc="sum")

    def tokens(self) -> pd.Series:
        """Tokens of each file of the test split."""
        one = self.documents[self.documents.cell == self.cells.cell.iloc[0]]
        return one.drop_duplicates("document").groupby("file").tokens.sum()

    def count(self, cell: str) -> int:
        """How many judged runs it has."""
        return int((self.runs.cell == cell).sum())

    def diverged(self, cell: str) -> pd.MultiIndex:
        """The seeds of the judged runs that diverged."""
        mine = self.runs[(self.runs.cell == cell) & (self.runs.status == "diverged")]
        return pd.MultiIndex.from_frame(mine[SEED])


def load(workdir: Workdir, table: pd.DataFrame, corpus: Corpus) -> Losses:
    """The losses of the cells in `table` (eval.tables.write_tables), not empty."""
    unigram = unigram_entropy(corpus)
    own_width = table.num_heads * table.d_k == table.d_model
    same = own_width.groupby(table.d_model).transform("all")
    depths = table.num_layers.nunique() > 1
    order = ["d_model", "num_heads", "d_k", "num_layers"]
    cells = table.assign(
        series=("d_k = " + table.d_k.astype(str)).where(~same, ""),
        depth=[f"{layers} layer{'s' if layers > 1 else ''}" if depths else "" for layers in table.num_layers],
    ).sort_values(order, ignore_index=True)
    every = pd.read_parquet(workdir.results / "replicas.parquet").merge(cells[["cell", "series", "depth"]])
    every = every[every.stage.isin(("tuning", "fresh", "both"))]
    every = every.assign(counted=every.loss.where(every.status == "done", unigram))
    choosing = every[(every.split == "tune") & (every.stage != "fresh")]
    runs = every[every.split == "test"].merge(cells[["cell", "learning_rate"]])
    runs = runs.sort_values([*order, *SEED], ignore_index=True)
    documents = pd.read_parquet(workdir.results / "documents.parquet")
    names = [grid.Replica(*run).name for run in runs[["learning_rate", *SEED]].itertuples(index=False)]
    own = runs[["cell", "learning_rate", *SEED, "status"]].assign(replica=names)
    documents = documents[documents.split == "test"].merge(own)
    trained_on = pd.Series(corpus.names[slice(*corpus.splits["train"])])
    files, trained_on = (names.map(corpus.file_of) for names in (documents.document, trained_on))
    apart = not set(files) & set(trained_on)
    counted = documents.loss_sum.where(documents.status == "done", unigram * documents.tokens)
    return Losses(cells, runs, choosing, documents.assign(file=files, counted=counted), unigram, apart)


def difference(losses: Losses, cell: str, other: str) -> pd.DataFrame:
    """Summed loss of `cell` less that of `other`: shared seeds (rows) by files (columns)."""
    ours, theirs = losses.sums(cell), losses.sums(other)
    shared = ours.index.intersection(theirs.index)
    return ours.loc[shared] - theirs.loc[shared]


def averaged(differences: list[pd.DataFrame]) -> pd.DataFrame:
    """The mean of several differences within each seed that all of them have."""
    shared = functools.reduce(pd.Index.intersection, [each.index for each in differences])
    return sum(each.loc[shared] for each in differences) / len(differences)
