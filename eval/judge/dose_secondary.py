"""Beside C4's primary cell: other demands, sources and depths under Holm's correction, and what T depends on."""

import dataclasses
import pathlib

import numpy as np
import pandas as pd
import scipy.stats

from eval import doses
from eval.judge import dose_rules, intervals, stats
from eval.judge.dose_rules import Judged, Steps
from eval.judge.intervals import Interval
from train.config import InputError, differences
from train.run import starts
from train.workdir import Workdir

FEW, MANY = 1, 6  # doses that the rules speak of
ONE_HEAD, MANY_HEADS = 1, 8  # fixed beforehand
# What may differ between a study and a secondary cell of it.
CONDITIONS = ("data.demand", "data.sources", "model.num_layers")
FREE = ("grid.num_heads", "dose.relations", "dose.starts", "eval.", "mesh.", "claims.")


@dataclasses.dataclass(frozen=True)
class Secondary:
    """A study of doses beside this one.

    Attributes:
      language: 'switch demand, tagged sources'.
      layers: of its models.
      mlp_first: whether the first layer's attention is off, so that its runs are those of that start.
      table: its runs, as in results/dose.csv.
    """

    language: str
    layers: int
    mlp_first: bool
    table: pd.DataFrame

    @property
    def words(self) -> str:
        layers = f"{self.layers} layer{'s' if self.layers > 1 else ''}"
        return f"{self.language}, {layers}{', the first an MLP alone' * self.mlp_first}"

    @property
    def runs(self) -> pd.DataFrame:
        """The fresh runs that the rule reads."""
        stage = starts.MLP_FIRST if self.mlp_first else doses.FRESH
        return self.table[self.table.stage == stage] if len(self.table) else self.table


@dataclasses.dataclass(frozen=True)
class Corrected:
    """C4a's rule on a secondary cell.

    Attributes:
      judged: alone.
      p_value: that the ratio at many relations is no more than matters, or does not grow with them, whichever is
        likelier, two-sided; nan where the cell is not testable.
      holds: supported, under Holm over all secondary cells that are testable.
    """

    words: str
    judged: Judged
    p_value: float
    holds: bool


def load(paths: list[str], config: dict) -> list[Secondary]:
    """The studies in the workdirs `paths` beside the one with this `config` (nested dicts, as config.json has it).

    Raises:
      InputError: a folder without the runs of a study of doses, one that differs in more than CONDITIONS, or two of the
        same condition.
    """
    found = []
    for path in paths:
        workdir = Workdir(pathlib.Path(path))
        record, runs = workdir.record(), workdir.results / "dose.csv"
        if record is None or not runs.exists():
            raise InputError(
                f"--arms names {path}, which holds no runs of a study of doses (results/dose.csv); run one there first."
            )
        theirs = record["config"]
        changed = [line for line in differences(config, theirs) if not line.startswith(FREE)]
        others = [line for line in changed if not line.startswith(CONDITIONS)]
        if others or not changed:
            why = "; ".join(others) if others else "nothing"
            raise InputError(
                f"--arms names {path}, whose study differs from this one in {why}; a secondary cell differs in "
                f"{', '.join(CONDITIONS)}, and has all else alike."
            )
        spoken = language(theirs["data"]["demand"], theirs["data"]["sources"])
        mlp_first = starts.MLP_FIRST in theirs["dose"]["starts"]
        found.append(Secondary(spoken, theirs["model"]["num_layers"], mlp_first, pd.read_csv(runs)))
        if found[-1].words in [other.words for other in found[:-1]]:
            raise InputError(f"--arms names two studies of {found[-1].words}; give each condition once.")
    return found


def language(demand: str, sources: str) -> str:
    return f"{demand} demand, {sources} sources"


def fresh_runs(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.stage == doses.FRESH] if len(table) else table


def steps_of(fresh: pd.DataFrame, heads: int, dose: int) -> Steps:
    mine = fresh[(fresh.num_heads == heads) & (fresh.relations == dose)].sort_values("seed")
    return Steps(mine.steps.to_numpy(float), (mine.outcome == "reached").to_numpy())


def missing(fresh: pd.DataFrame) -> list[str]:
    """Of what C4's rules read, what has no fresh run."""
    return [
        f"{heads} heads at {dose} relations"
        for heads in (ONE_HEAD, MANY_HEADS)
        for dose in (FEW, MANY)
        if fresh.empty or not ((fresh.num_heads == heads) & (fresh.relations == dose)).any()
    ]


def corrected(cells: list[Secondary], confidence: float) -> list[Corrected]:
    """C4a's rule on each of the secondary cells that have the runs for it, as one family."""
    judged, p_values = {}, {}
    for cell in cells:
        fresh = cell.runs
        if missing(fresh):
            continue
        runs = [steps_of(fresh, heads, dose) for dose in (FEW, MANY) for heads in (ONE_HEAD, MANY_HEADS)]
        judged[cell.words] = dose_rules.slower(*runs, confidence)
        if judged[cell.words].why != dose_rules.NOT_TESTABLE:
            few, many = dose_rules.gap(*runs[:2]), dose_rules.gap(*runs[2:])
            p_values[cell.words] = max(_above(many, dose_rules.SLOWER), _above(many - few, 0.0))
    rejected = stats.rejected(list(p_values.values()), 1 - confidence, "holm")
    holds = dict(zip(p_values, rejected.tolist(), strict=True))
    return [
        Corrected(words, one, p_values.get(words, np.nan), holds.get(words, False)) for words, one in judged.items()
    ]


def _above(values: np.ndarray, least: float) -> float:
    """Student's t: the two-sided p-value of a mean that is to lie above `least`; 1 where it lies below."""
    if np.ptp(values) == 0:
        return 0.0 if values[0] > least else 1.0
    return min(1.0, 2 * float(scipy.stats.ttest_1samp(values, least, alternative="greater").pvalue))


def slopes(tables: list[pd.DataFrame], confidence: float) -> dict[str, Interval] | None:
    """What log T of fresh runs depends on: intervals over seeds of exponents, None where too few shapes or doses have
    runs to tell them apart. Capped runs count as the cap.

    In log T = a log r + b log(heads x layers) + c, by least squares within each seed: a is `relations`, b is
    `heads_layers`, and `sum` is a + b, 0 where r / (heads x layers) alone matters.
    """
    runs = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()])
    fitted = []
    for _, mine in runs.groupby("seed") if len(runs) else ():
        columns = [np.log(mine.relations), np.log(mine.num_heads * mine.num_layers), np.ones(len(mine))]
        design = np.stack(columns, axis=1).astype(float)
        if np.linalg.matrix_rank(design) < design.shape[1]:
            return None
        fitted.append(np.linalg.lstsq(design, np.log(mine.steps.to_numpy(float)), rcond=None)[0][:2])
    if len(fitted) < 2:
        return None
    relations, heads_layers = np.array(fitted).T
    found = {"relations": relations, "heads_layers": heads_layers, "sum": relations + heads_layers}
    return {name: intervals.over_seeds(values, confidence) for name, values in found.items()}
