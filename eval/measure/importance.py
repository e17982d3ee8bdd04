"""How much each head matters by cheaper measures than closing it: gradient, norm, weights, confidence, relevance."""

import numpy as np
import pandas as pd

from eval.heads.importance import ablation, relevance, runs, scores
from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import StudyConfig

IN_STUDY = False
MEASURES = ["gradient", "gradient_normalised", "magnitude", "norm", "confidence", "relevance"]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.dose.relations:
        return "importance is measured on the documents of a corpus, and here every seed speaks a language of its own."
    return "" if model.causal else "importance is for the next token's loss, and this model is masked."


def settings(config: StudyConfig) -> dict:
    return {"windows": config.pruning.windows}


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """A row a judged replica, layer and head, and a column each of MEASURES (eval/heads/importance/scores.py and
    relevance.py), on a sample of the split's windows."""
    model, parts = restored.pack.model, []
    windows = ablation.sample(restored.corpus, split, model.seq_len, chosen["windows"])
    for replica, params in runs.judged(restored):
        raw = scores.gradient(model, params, windows)
        norm, confidence = scores.norms_and_confidence(model, params, windows)
        lrp, magnitude = relevance.relevance(model, params, windows), scores.magnitude(model, params)
        found = (raw, scores.normalised(raw), magnitude, norm, confidence, lrp)
        layer, head = (axis.ravel() for axis in np.indices(raw.shape))
        columns = {name: values.ravel() for name, values in zip(MEASURES, found, strict=True)}
        parts.append(pd.DataFrame({"replica": replica.name, "layer": layer, "head": head, **columns}))
    return pd.concat(parts) if parts else pd.DataFrame(columns=["replica", "layer", "head", *MEASURES])
