"""All verdicts of a study: results/claims.json."""

import dataclasses

import numpy as np
import pandas as pd

from eval.judge import arms, claims, evidence, price
from eval.judge.comparison import CLAIMS, Verdict
from train import grid
from train.config import StudyConfig
from train.data.corpora import Corpus
from train.files import write_json
from train.workdir import Workdir, read_json

MORE_TOKENS = 1.05  # the margin is compared with what 5 % more tokens bring


def cells_to_price(workdir: Workdir, table: pd.DataFrame, corpus: Corpus) -> tuple[str, ...]:
    """The cells whose steps C3 compares: of each d_model h = 1 and the h* of C1."""
    if table.empty:
        return ()
    pairs = price.to_measure(evidence.load(workdir, table, corpus)).values()
    return tuple(dict.fromkeys(cell for pair in pairs for cell in pair))


def write(
    workdir: Workdir, table: pd.DataFrame, config: StudyConfig, corpus: Corpus, beside: list[arms.Arm]
) -> list[Verdict]:
    """Judges every claim, writes results/claims.json and returns the verdicts.

    Args:
      table: the cells table, not empty.
      beside: the study's arms.
    """
    found = evidence.load(workdir, table, corpus)
    looks = _looks(workdir, found, config)
    beside = arms.compared(beside, corpus.fingerprint)
    verdicts = [
        claims.judge(comparison, found, workdir, config, corpus.source, looks[comparison.id], beside)
        for comparison in CLAIMS
    ]
    verdicts = [*verdicts, price.judge(found, workdir, config, corpus.source)]
    verdicts[0].details["margin_in_tokens"] = gain_of_more_tokens(workdir, found)
    write_json(workdir.results / "claims.json", [dataclasses.asdict(verdict) for verdict in verdicts])
    return verdicts


def _looks(workdir: Workdir, found: evidence.Evidence, config: StudyConfig) -> dict[str, int]:
    """How often each claim's verdict has been read here, each time with other seeds or another choice of cells or rates
    to compare; this time counts once nothing is missing."""
    seeds, rates = sorted(map(list, grid.judged_seeds(config))), found.cells.set_index("cell").learning_rate
    read = read_json(workdir.looks) or {}
    for comparison in CLAIMS:
        chosen = [[cell, float(rates[cell])] for pair in comparison.pairs(found.cells).values() for cell in pair]
        look, earlier = {"seeds": seeds, "chosen": chosen}, read.setdefault(comparison.id, [])
        if look not in earlier and not claims.missing(comparison, found, workdir, config):
            earlier.append(look)
    if any(read.values()):
        write_json(workdir.looks, read)
    return {name: max(1, len(earlier)) for name, earlier in read.items()}


def gain_of_more_tokens(workdir: Workdir, found: evidence.Evidence) -> float | None:
    """How much the training loss of the judged runs falls, in nats/token, as tokens grow by MORE_TOKENS: the slope over
    the last half of the steps against the logarithm of the step."""
    slopes = []
    for cell in found.cells.cell:
        mean = price.judged_curve(workdir, cell, found)
        late = mean[mean.index >= mean.index.max() / 2] if len(mean) else mean
        if len(late) > 2:
            slopes.append(np.polyfit(np.log(late.index.to_numpy() + 1), late.to_numpy(), 1)[0])
    return float(-np.mean(slopes) * np.log(MORE_TOKENS)) if slopes else None
