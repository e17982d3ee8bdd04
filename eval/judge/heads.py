"""What claims about single models share: the cell that answers, the runs that are judged, and their rows."""

import pandas as pd

from eval.judge.evidence import Evidence
from eval.judge.losses import SEED
from train import grid
from train.workdir import read_table


def rows(evidence: Evidence, table: str) -> pd.DataFrame:
    """results/<table>.parquet of the judged runs, each at its cell's chosen rate, with the columns `d_model`,
    `num_heads`, `num_layers` of the cell; empty where there is none."""
    path = evidence.workdir.results / f"{table}.parquet"
    if not path.exists():
        return pd.DataFrame()
    found = read_table(path)
    found = found[~found.init_seed.isin(evidence.config.grid.tuning_seeds)]
    if len(evidence.cells):
        found = found.merge(evidence.cells[["cell", "learning_rate"]])
    shapes = pd.DataFrame(
        [
            {
                "cell": cell.name,
                "d_model": cell.model.d_model,
                "num_heads": cell.model.num_heads,
                "num_layers": cell.model.num_layers,
            }
            for cell in evidence.planned
        ]
    )
    return found.merge(shapes, on="cell")


def seeds(evidence: Evidence) -> list[tuple[int, int]]:
    """(init seed, data seed) of the runs that are judged; those without a row of their own answer neither way."""
    return list(grid.judged_seeds(evidence.config))


def answering(cells: pd.DataFrame, heads: int) -> str:
    """The cell that a claim is decided in: of the widest d_model, that whose num_heads is nearest to `heads` on a
    logarithmic scale, the fewer of two that are as near, the first of several of one shape.

    Args:
      cells: rows with `cell`, `d_model`, `num_heads`.
    """
    widest = cells[cells.d_model == cells.d_model.max()].drop_duplicates("cell")
    ratio = (widest.num_heads / heads).where(widest.num_heads >= heads, heads / widest.num_heads)
    return str(widest.assign(ratio=ratio).sort_values(["ratio", "num_heads"], kind="stable").cell.iloc[0])


def by_seed(found: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    """Rows by (init seed, data seed)."""
    return {(int(pair[0]), int(pair[1])): mine for pair, mine in found.groupby(SEED)}
