"""What the page states: the tables of a workdir joined, and the sentences that they support."""

import dataclasses
import functools
import math

import pandas as pd

from eval.judge import asides, evidence, sentences
from eval.judge.comparison import CLAIMS
from eval.judge.evidence import SEED, Evidence
from train import grid
from train.config import freeze
from train.data import baselines, corpora, sources
from train.run import metrics
from train.workdir import Workdir, read_json

SHAPE = ("d_model", "num_heads", "num_layers")  # of a cell, beside its series


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
    corpus: corpora.Corpus
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
        """Training loss at each cell's chosen rate, averaged over its seeds: cell, SHAPE, series, depth, step, tokens,
        seconds (by the timing pass), flops (of training), loss. A diverged run is left out."""
        frames, config = [], self.record["config"]
        a_step = config["train"]["batch_size"] * config["data"]["seq_len"]
        for row in self.cells.itertuples():
            runs = self.seeds[(self.seeds.cell == row.cell) & (self.seeds.status == "done")]
            names = {grid.Replica(run.learning_rate, run.init_seed, run.data_seed).name for run in runs.itertuples()}
            lines = [line for line in metrics.read(self.workdir.cell(row.cell).metrics) if line["replica"] in names]
            if lines:
                mean = pd.DataFrame(lines).astype({"loss": float}).groupby("step", as_index=False).loss.mean()
                shape = {name: getattr(row, name) for name in ("cell", *SHAPE, "series", "depth")}
                step = mean.step + 1
                flops = 3.0 * row.flops_per_token * a_step  # forward, and twice as much backward
                axes = {"tokens": step * a_step, "seconds": step * (row.step_ms or math.nan) / 1e3}
                frames.append(mean.assign(**shape, step=step, **axes, flops=step * flops))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @functools.cached_property
    def pairs(self) -> pd.DataFrame:
        """Per cell and seed: `difference`, its test loss less that of h = 1 of the same d_model, series and depth."""
        if self.seeds.empty:
            return pd.DataFrame()
        keys = ["d_model", "series", "num_layers", *SEED]
        single = self.seeds[self.seeds.num_heads == 1][[*keys, "counted"]]
        joined = self.seeds[self.seeds.num_heads > 1].merge(single, on=keys, suffixes=("", "_single"))
        return joined.assign(difference=joined.counted - joined.counted_single)


def load(workdir: Workdir, table: pd.DataFrame) -> Facts:
    """The facts of `workdir`, restricted to the cells in `table` where they are results."""
    record, corpus = workdir.record(), corpora.open_corpus(workdir.data)
    found = evidence.load(workdir, table, corpus) if len(table) else None
    config = freeze(record["config"])
    planned = grid.cells_of(config, sources.vocab_size(config.data))
    verdicts = (read_json(workdir.results / "claims.json") or []) if len(table) else []
    return Facts(workdir, found, planned, verdicts, record, corpus, baselines.unigram_entropy(corpus))


def signed(value: float) -> str:
    return sentences.signed(value).replace("-", "−")


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
    loss at a quarter and at four times the chosen rate, less that at the chosen one; None where it was not tried, and
    empty if no cell tried either."""
    means = facts.evidence.choosing.groupby(["cell", "learning_rate"]).counted.mean()
    found = []
    for row in facts.cells.itertuples():
        mine = means[row.cell]
        costs = {}
        for name, factor in (("lower", 0.25), ("higher", 4.0)):
            near = mine[[math.isclose(rate, factor * row.learning_rate, rel_tol=0.02) for rate in mine.index]]
            costs[name] = float(near.iloc[0] - mine[row.learning_rate]) if len(near) else None
        found.append({"cell": row.cell, "rate": row.learning_rate, **costs})
    return found if any(row[name] is not None for row in found for name in ("lower", "higher")) else []


def may_be_best(facts: Facts) -> dict[str, bool]:
    """Whether each cell is in the 95 % set of the best of its group (asides.best_set). The groups are those of C2:
    all else is equal but h and d_k, or d_k alone where h is fixed; where no two cells share such a group, those of C1.
    A cell with none beside it has no answer; empty with crossed seeds, which are no blocks."""
    if facts.record["config"]["grid"]["seeds"] == "crossed":
        return {}
    by_heads, by_width = (
        [pd.concat(sides).cell.tolist() for sides in comparison.sides(facts.cells).values()] for comparison in CLAIMS
    )
    groups = by_width if max(map(len, by_width)) > 1 else by_heads
    sets = [asides.best_set(facts.evidence, group, 0.95)[0] for group in groups if len(group) > 1]
    return {cell: inside for found in sets for cell, inside in found.items()}


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
