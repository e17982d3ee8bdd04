"""Loss of every document, each token counted once."""

import pandas as pd

from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import EvalConfig, StudyConfig
from train.losses.documents import document_losses

TABLE = "documents"
IN_STUDY = True


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    if config.dose.relations:
        return "losses are of the documents of a corpus, and here every seed speaks a language of its own."
    return ""


def settings(config: StudyConfig) -> dict:
    return {"stride": config.eval.stride, "batch_size": config.eval.batch_size}


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """A row a replica and document: `document`, `tokens`, `bytes`, and `loss_sum` in nats."""
    pack, corpus = restored.pack, restored.corpus
    losses = document_losses(pack.model, pack.replica_map, restored.params, corpus, split, EvalConfig(**chosen))
    if split == "tune":
        restored.check(losses.sum(axis=1), "summed tune losses", lambda trained: trained["tune_losses"])
    documents = slice(*corpus.splits[split])
    shared = {
        "document": corpus.names[documents],
        "tokens": corpus.num_tokens[documents],
        "bytes": corpus.num_bytes[documents],
    }
    return pd.concat(
        pd.DataFrame({"replica": replica.name, **shared, "loss_sum": row})
        for replica, row in zip(pack.replicas, losses, strict=True)
    )
