"""What the page states: the tables of a workdir joined, and the sentences that they support."""

import dataclasses
import functools
import math

import pandas as pd

from eval import evidence, intervals, stats
from eval.evidence import SEED, Evidence
from train import data, grid, metrics, sources
from train.config import freeze
from train.workdir import Workdir, read_json


@dataclasses.dataclass(frozen=True)
class Facts:
    """A workdir's outcome. Losses are in nats/token.

    Attributes:
      evidence: the judged runs, None where there are none.
      planned: every cell of the config, evaluated or not.
      verdicts: results/claims.json.
      record: config.json.
    """

    workdir: Workdir
    evidence: Evidence | None
    planned: tuple[grid.Cell, ...]
    verdicts: list[dict]
    record: dict
    corpus: data.Corpus
    unigram: float

    @property
    def cells(self) -> pd.DataFrame:
        return self.evidence.cells if self.evidence else pd.DataFrame()

    @property
    def seeds(self) -> pd.DataFrame:
        """The `test` runs at each cell's chosen rate: one row a seed."""
        return self.evidence.runs if self.evidence else pd.DataFrame()

    @property
    def bigram(self) -> float:
        return float(self.cells.bigram_bits_per_byte.iloc[0] * math.log(2) * self.corpus.bytes_per_token("test"))

    def curves(self) -> pd.DataFrame:
        """Training loss at each cell's chosen rate, averaged over its seeds: cell, d_model, num_heads, series, step,
        tokens, seconds (by the timing pass), petaflops (of training), loss. A diverged run is left out."""
        frames, config = [], self.record["config"]
        a_step = config["train"]["batch_size"] * config["data"]["seq_len"]
        for row in self.cells.itertuples():
            runs = self.seeds[(self.seeds.cell == row.cell) & (self.seeds.status == "done")]
            names = {grid.Replica(run.learning_rate, run.init_seed, run.data_seed).name for run in runs.itertuples()}
            lines = [line for line in metrics.read(self.workdir.cell(row.cell).metrics) if line["replica"] in names]
            if lines:
                mean = pd.DataFrame(lines).astype({"loss": float}).groupby("step", as_index=False).loss.mean()
                shape = {"cell": row.cell, "d_model": row.d_model, "num_heads": row.num_heads, "series": row.series}
                step = mean.step + 1
                flops = 3e-15 * row.flops_per_token * a_step  # forward, and twice as much backward
                axes = {"tokens": step * a_step, "seconds": step * (row.step_ms or math.nan) / 1e3}
                frames.append(mean.assign(**shape, step=step, **axes, petaflops=step * flops))
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
        sums = evidence.difference(self.evidence, row.cell, single[single.series == row.series].cell.item())
        tokens = self.evidence.tokens().loc[sums.columns].to_numpy()
        these, new = (of(sums.to_numpy(), tokens) for of in (intervals.these_documents, intervals.new_documents))
        return these, new, intervals.effective_documents(tokens)


def load(workdir: Workdir, table: pd.DataFrame) -> Facts:
    """The facts of `workdir`, restricted to the cells in `table` where they are results."""
    record, corpus = workdir.record(), data.open_corpus(workdir.data)
    found = evidence.load(workdir, table, corpus) if len(table) else None
    config = freeze(record["config"])
    planned = grid.cells_of(config, sources.vocab_size(config.data))
    verdicts = read_json(workdir.results / "claims.json") or []
    return Facts(workdir, found, planned, verdicts, record, corpus, data.unigram_entropy(corpus))


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


def rate_costs(facts: Facts) -> list[dict]:
    """How much a factor 4 in the learning rate costs each cell (the sensitivity of Wortsman et al. 2023): its mean tune
    loss at a quarter and at four times the chosen rate, less that at the chosen one; None where it was not tried."""
    means = facts.evidence.choosing.groupby(["cell", "learning_rate"]).counted.mean()
    found = []
    for row in facts.cells.itertuples():
        mine = means[row.cell]
        costs = {}
        for name, factor in (("lower", 0.25), ("higher", 4.0)):
            near = mine[[math.isclose(rate, factor * row.learning_rate, rel_tol=0.02) for rate in mine.index]]
            costs[name] = float(near.iloc[0] - mine[row.learning_rate]) if len(near) else None
        found.append({"cell": row.cell, "d_model": row.d_model, "rate": row.learning_rate, **costs})
    return found


def may_be_best(facts: Facts) -> dict[str, bool]:
    """Whether each cell is in the 95 % set of the best of its d_model (eval.stats.best_set), over the seeds that all of
    them have."""
    found = {}
    for _, cells in facts.cells.groupby(["d_model", "series"]):
        runs = facts.seeds[facts.seeds.cell.isin(cells.cell)]
        losses = runs.pivot_table(index="cell", columns=SEED, values="counted").dropna(axis=1)
        if losses.shape[1] > 1:
            found |= dict(zip(losses.index, stats.best_set(losses.to_numpy()).tolist(), strict=True))
    return found


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
