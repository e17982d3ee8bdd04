"""What the page states: the tables of a workdir joined, and the sentences that they support."""

import dataclasses
import functools
import math

import pandas as pd

from eval import intervals
from train import data, grid, metrics
from train.config import freeze
from train.workdir import Workdir

SEED = ["init_seed", "data_seed"]


@dataclasses.dataclass(frozen=True)
class Facts:
    """A workdir's outcome. Losses are in nats/token.

    Attributes:
      cells: the cells table in the order d_model, num_heads, d_k, with `series`: '' where every cell of the d_model has
        num_heads * d_k = d_model, else 'd_k = <d_k>', since heads are compared at one d_k then.
      runs: replicas.parquet of those cells with `series`, `num_heads`, ... and `counted`: the loss, or for a diverged
        run the unigram entropy of the training split.
      planned: every cell of the config, evaluated or not.
      documents: documents.parquet, the `test` rows of those cells, each with the `file` it is from.
      record: config.json.
    """

    workdir: Workdir
    cells: pd.DataFrame
    runs: pd.DataFrame
    documents: pd.DataFrame
    planned: tuple[grid.Cell, ...]
    record: dict
    corpus: data.Corpus
    unigram: float

    @functools.cached_property
    def seeds(self) -> pd.DataFrame:
        """The `test` runs at each cell's chosen rate: one row a seed."""
        if self.cells.empty:
            return self.runs
        chosen = self.runs[self.runs.split == "test"].merge(self.cells[["cell", "learning_rate"]])
        return chosen.sort_values(["d_model", "num_heads", "d_k", *SEED], ignore_index=True)

    @property
    def bigram(self) -> float:
        return float(self.cells.bigram_bits_per_byte.iloc[0] * math.log(2))

    def curves(self) -> pd.DataFrame:
        """Training loss at each cell's chosen rate, averaged over its seeds: cell, d_model, num_heads, series, step,
        loss. A diverged run is left out."""
        frames = []
        for row in self.cells.itertuples():
            runs = self.seeds[(self.seeds.cell == row.cell) & (self.seeds.status == "done")]
            names = {grid.Replica(run.learning_rate, run.init_seed, run.data_seed).name for run in runs.itertuples()}
            lines = [line for line in metrics.read(self.workdir.cell(row.cell).metrics) if line["replica"] in names]
            if lines:
                mean = pd.DataFrame(lines).astype({"loss": float}).groupby("step", as_index=False).loss.mean()
                shape = {"cell": row.cell, "d_model": row.d_model, "num_heads": row.num_heads, "series": row.series}
                frames.append(mean.assign(**shape, step=mean.step + 1))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @functools.cached_property
    def pairs(self) -> pd.DataFrame:
        """Per cell and seed: `difference`, its test loss less that of h = 1 of the same d_model and series."""
        if self.seeds.empty:
            return pd.DataFrame()
        keys = ["d_model", "series", *SEED]
        single = self.seeds[self.seeds.num_heads == 1][[*keys, "counted"]]
        joined = self.seeds[self.seeds.num_heads > 1].merge(single, on=keys, suffixes=("", "_single"))
        return joined.assign(difference=joined.counted - joined.counted_single)

    def against_single(self, row: pd.Series) -> tuple[intervals.Interval, intervals.Interval, float]:
        """The test loss of a cell less that of h = 1 of its d_model and series, paired by seed: the interval on these
        documents, that for new documents too, and the effective number of files."""
        single = self.cells[(self.cells.num_heads == 1) & (self.cells.d_model == row.d_model)]
        of_single = self._sums(single[single.series == row.series].cell.item())
        of_cell = self._sums(row.cell)
        shared = of_cell.index.intersection(of_single.index)
        sums = (of_cell.loc[shared] - of_single.loc[shared]).to_numpy()
        tokens = self.documents[self.documents.cell == row.cell]
        tokens = tokens.drop_duplicates("document").groupby("file").tokens.sum().loc[of_cell.columns].to_numpy()
        these, new = intervals.these_documents(sums, tokens), intervals.new_documents(sums, tokens)
        return these, new, intervals.effective_documents(tokens)

    def _sums(self, cell: str) -> pd.DataFrame:
        """Summed `test` loss in nats of each seed (rows) on each file (columns) at the cell's chosen rate, a diverged
        run counted as the unigram entropy of the training split."""
        runs = self.seeds[self.seeds.cell == cell][["cell", "learning_rate", *SEED, "status"]]
        found = self.documents.merge(runs, on=["cell", "learning_rate", *SEED])
        counted = found.loss_sum.where(found.status == "done", self.unigram * found.tokens)
        return found.assign(counted=counted).pivot_table(index=SEED, columns="file", values="counted", aggfunc="sum")


def load(workdir: Workdir, table: pd.DataFrame) -> Facts:
    """The facts of `workdir`, restricted to the cells in `table` where they are results."""
    record, corpus = workdir.record(), data.open_corpus(workdir.data)
    unigram = data.unigram_entropy(corpus)
    runs, documents = pd.DataFrame(), pd.DataFrame()
    if len(table):
        own_width = table.num_heads * table.d_k == table.d_model
        same = own_width.groupby(table.d_model).transform("all")
        table = table.assign(series=("d_k = " + table.d_k.astype(str)).where(~same, ""))
        table = table.sort_values(["d_model", "num_heads", "d_k"], ignore_index=True)
        runs = pd.read_parquet(workdir.results / "replicas.parquet").merge(table[["cell", "series"]], on="cell")
        runs = runs.assign(counted=runs.loss.where(runs.status == "done", unigram))
        documents = pd.read_parquet(workdir.results / "documents.parquet")
        documents = documents[(documents.split == "test") & documents.cell.isin(table.cell)]
        files = documents.document if corpus.unit == "document" else documents.document.str.rpartition("@")[0]
        documents = documents.assign(file=files)
    planned = grid.cells_of(freeze(record["config"]), data.VOCAB_SIZE)
    return Facts(workdir, table, runs, documents, planned, record, corpus, unigram)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one d_model (and series) says, for the top of the page.

    Attributes:
      effect: the paired difference of the best multi-head cell to h = 1, with its interval; '' if there is none.
      outcome: 'lower', 'higher', 'open' (the interval includes 0), 'one seed', or '' if nothing can be compared.
    """

    title: str
    sentences: tuple[str, ...]
    effect: str = ""
    outcome: str = ""


def readings(facts: Facts) -> list[Reading]:
    if facts.cells.empty:
        return []
    return [
        _reading(facts, f"d_model {d_model}" + (f" ({series})" if series else ""), cells)
        for (d_model, series), cells in facts.cells.groupby(["d_model", "series"])
    ]


def _reading(facts: Facts, title: str, cells: pd.DataFrame) -> Reading:
    if (cells.diverged_chosen == cells.seeds).all():
        return Reading(title, ("Every run at the chosen rates diverged; there is nothing to compare.",))
    best = cells.loc[cells.tune_loss.idxmin()]
    single, multi = cells[cells.num_heads == 1], cells[cells.num_heads > 1]
    if single.empty or multi.empty:
        missing = "h = 1" if single.empty else "more than one head"
        alone = f"{_name(best)} has a test loss of {best.test_loss:.3f} nats/token."
        return Reading(title, (alone, f"No cell with {missing} is in the tables, so there is nothing to compare."))
    shown = best if best.num_heads > 1 else multi.loc[multi.tune_loss.idxmin()]
    lead = f"{_name(best)} has the lowest tune loss." if best.num_heads > 1 else "No h beats h = 1 on the tune loss."
    effect, outcome, compared = _compared(facts, shown)
    sentences = [lead, compared]
    widest = cells.loc[cells.num_heads.idxmax()]
    if widest.d_k == 1 and widest.cell != shown.cell:
        least = _compared(facts, widest)[0] or "not comparable"
        sentences.append(f"{_name(widest)}, one feature a head, against h = 1: {least}.")
    for row in (single.iloc[0], shown):
        if row.diverged_chosen:
            sentences.append(
                f"{row.diverged_chosen} of {row.seeds} runs of {_name(row)} diverged, each counted as the unigram "
                f"entropy, {facts.unigram:.3f}."
            )
    return Reading(title, tuple(sentences), effect, outcome)


def _compared(facts: Facts, row: pd.Series) -> tuple[str, str, str]:
    """The paired difference of a cell to h = 1: the effect and outcome of a Reading, and a sentence."""
    pairs = facts.pairs[facts.pairs.cell == row.cell]
    if pairs.empty:
        return "", "", f"{_name(row)} and h = 1 share no seed, so there is no paired difference."
    these, new, files = facts.against_single(row)
    word = "lower" if these.mean < 0 else "higher"
    losses = f"{pairs.counted.mean():.3f} against {pairs.counted_single.mean():.3f}"
    sentence = (
        f"The test loss of {_name(row)} is {abs(these.mean):.3f} nats/token {word} than that of h = 1 ({losses})."
    )
    if math.isnan(these.low):
        return signed(these.mean), "one seed", f"{sentence} One seed gives no interval."
    enough = files >= intervals.ENOUGH_DOCUMENTS
    deciding = new if enough else these
    outcome = "open" if deciding.low <= 0 <= deciding.high else word
    ends = f"95 % interval, paired over {len(pairs)} seeds: {_ends(these)} on these documents"
    ends += f", {_ends(new)} on new ones too, which decides." if enough else "."
    if not enough:
        ends += (
            f" They weigh as {files:.1f} files of equal length, and {intervals.ENOUGH_DOCUMENTS} are needed to speak "
        )
        ends += "of new ones."
    doubt = "It includes 0: these runs do not settle even the sign." if outcome == "open" else "It excludes 0."
    effect = f"{signed(these.mean)} [{signed(deciding.low)}, {signed(deciding.high)}]"
    return effect, outcome, f"{sentence} {ends} {doubt}"


def _ends(interval: intervals.Interval) -> str:
    return f"{signed(interval.low)} to {signed(interval.high)}"


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def lead(found: list[Reading]) -> str:
    """The study in a sentence or two, in plain words."""
    words = {
        "lower": "With these seeds several heads reach a lower test loss than one at {}.",
        "higher": "With these seeds one head reaches a lower test loss than several at {}.",
        "open": "Whether several heads beat one stays open at {}: the interval includes 0.",
        "one seed": "One seed cannot say whether several heads beat one at {}: it gives no interval.",
        "": "Nothing can be compared at {}.",
    }
    titles = {outcome: [each.title for each in found if each.outcome == outcome] for outcome in words}
    return " ".join(words[outcome].format(_listed(names)) for outcome, names in titles.items() if names)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _name(row: pd.Series) -> str:
    return f"h = {row.num_heads} (d_k = {row.d_k})"


def budget_notes(cells: pd.DataFrame) -> list[str]:
    """What the sizes have in common, in words."""
    sizes = cells.params_non_embedding
    spread = sizes.max() / sizes.min() - 1
    notes = [f"Non-embedding parameters of all cells agree within {spread:.3%} ({sizes.min():,} to {sizes.max():,})."]
    by_d_model = cells.groupby("d_model").params_attention
    if (by_d_model.nunique() == 1).all():
        each = ", ".join(f"{count:,} at d_model {d_model}" for d_model, count in by_d_model.first().items())
        notes.append(f"Attention parameters are identical over h within a d_model: {each}.")
    else:
        notes.append("Attention parameters differ within a d_model, because h * d_k does.")
    return notes


def rate_notes(facts: Facts) -> list[str]:
    """Whether the rates that were tried enclose each cell's best one."""
    compared = facts.cells[facts.cells.diverged_chosen < facts.cells.seeds]
    if compared.empty:
        return []
    if (compared.edge == "only").any():
        return ["One rate was tried, so no cell is tuned: a difference may come from the rate as well as from h."]
    at = {edge: compared.cell[compared.edge == edge] for edge in ("lowest", "highest")}
    return [
        f"Best at the {edge} rate tried, so a better one may lie beyond: {', '.join(names)}."
        for edge, names in at.items()
        if len(names)
    ] or ["Every cell's best rate lies inside the range that was tried."]
