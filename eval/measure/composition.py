"""What each head could read of what each other head writes, against random rotations between the two."""

import jax
import numpy as np
import pandas as pd

from eval.heads.composition import scores
from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import StudyConfig

IN_STUDY = True
COLUMNS = ["replica", "kind", "place", "from_layer", "from_head", "to_layer", "to_head", "score", "z", "p"]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    return "" if model.num_layers > 1 else "composition takes two layers, and this model has one."


def settings(config: StudyConfig) -> dict:
    return {}


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """A row a replica that did not diverge, kind (what the target reads it for: q, k or v) and pair of heads, on `test`
    alone, since weights have no split: where the target stands (`place`: later, or, what cannot be, in the same or an
    earlier layer), `score` 0 to 1, `z` and `p` against random rotations.
    """
    layers, heads, parts = restored.pack.model.num_layers, restored.pack.model.num_heads, []
    about = _pairs(layers, heads)
    lost = jax.device_get(restored.diverged_at)
    for row, replica in enumerate(restored.pack.replicas):
        if split == "test" and lost[row] < 0:
            found = scores.compositions(jax.device_get(restored.params_of(row)))
            flat = {name: value.ravel().astype(np.float32) for name, value in found._asdict().items()}
            parts.append(about.assign(replica=replica.name, **flat)[about.itself.to_numpy() == 0][COLUMNS])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _pairs(layers: int, heads: int) -> pd.DataFrame:
    """A row a kind, source and target, in the order of scores.Compositions."""
    kind, source, target = (each.ravel() for each in np.indices((len(scores.KINDS), *[layers * heads] * 2)))
    columns = {"kind": np.array(scores.KINDS)[kind], "place": scores.places(layers, heads)[source, target]}
    for name, head in (("from", source), ("to", target)):
        columns |= {f"{name}_layer": head // heads, f"{name}_head": head % heads}
    return pd.DataFrame(columns).assign(itself=source == target)
