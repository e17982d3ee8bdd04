"""Rise in loss with each head closed alone, by layer, head, ablation and source file."""

import numpy as np
import pandas as pd

from eval.heads.importance import ablation, runs
from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import StudyConfig
from train.data.corpora import Corpus

IN_STUDY = True
COLUMNS = ["replica", "layer", "head", "ablation", "file", "tokens", "rise"]


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.dose.relations:
        return "ablation is measured on the documents of a corpus, and here every seed speaks a language of its own."
    if not config.ablation.kinds:
        return "config.ablation.kinds is empty; name some of zero, mean, resample, optimal."
    return "" if model.causal else "a head is closed for the next token's loss, and this model is masked."


def settings(config: StudyConfig) -> dict:
    chosen = config.ablation
    return {
        "kinds": chosen.kinds,
        "windows": chosen.windows,
        "per_document": chosen.per_document,
        "optimal_steps": chosen.optimal_steps if ablation.OPTIMAL in chosen.kinds else 0,
        "stride": config.eval.stride,
    }


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """A row a judged replica, layer, head, ablation and source file: `tokens`, and `rise`, by how many nats the loss,
    summed over the file's tokens, rises."""
    corpus, model, parts = restored.corpus, restored.pack.model, []
    windows = ablation.of_split(corpus, split, model.seq_len, chosen["stride"], chosen["per_document"])
    names, tokens, files = runs.files(corpus, split, windows)
    for replica, params in runs.judged(restored):
        for kind in chosen["kinds"]:
            fill_LHK = fills(model, params, corpus, kind, chosen)
            _, rise = ablation.rises(model, params, windows, fill_LHK, resample=kind == ablation.RESAMPLE)
            table = ablation.summed_by(files, rise, len(names))
            layer, head, file = (axis.ravel() for axis in np.indices(table.shape))
            sizes = {"file": names[file], "tokens": tokens[file], "rise": table.ravel()}
            parts.append(
                pd.DataFrame({"replica": replica.name, "layer": layer, "head": head, "ablation": kind, **sizes})
            )
    return pd.concat(parts)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def fills(model: ModelConfig, params: dict, corpus: Corpus, kind: str, chosen: dict):
    """What a closed head gives under an ablation of `kind`; None: nothing, or what it gives for another document.

    Means are over `windows` windows of train, the optimal constant is fitted on as many of tune.
    """
    if kind in (ablation.ZERO, ablation.RESAMPLE):
        return None
    mean_LHK, scale_LHK = ablation.means(
        model, params, ablation.sample(corpus, "train", model.seq_len, chosen["windows"])
    )
    if kind == ablation.MEAN:
        return mean_LHK
    fitted_on = ablation.sample(corpus, "tune", model.seq_len, chosen["windows"])
    return ablation.optimal(model, params, fitted_on, mean_LHK, scale_LHK, chosen["optimal_steps"])
