"""The profile of each head: where and how broadly it attends, how much it writes, and whether heads are distinct."""

import numpy as np
import pandas as pd

from eval.heads.roles import copying, distinct, effects, profile, watched
from eval.heads.roles.effects import LOCAL, NEXT, PREVIOUS
from eval.measure import roles
from eval.restore import Restored
from mha.transformer import Transformer, weights_in_blocks
from train.config import StudyConfig

IN_STUDY = True
INACTIVE = 0.1  # of the mean head of its layer, or less, is what an inactive head writes
SEMANTIC_TEXTS, SEMANTIC_BYTES = 32, 128 << 20  # at most, of the weights of one layer


lacks = roles.lacks


def settings(config: StudyConfig) -> dict:
    return {"texts": config.heads.texts}


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """One row a replica that did not diverge, layer and head; means over the queries but the first of each text:

    `previous_token`, `next_token`, `local` as for roles; `offset` at which it attends most (those of previous and next
    token aside), with `at_offset` its attention there, on these texts; `entropy` over log of what is visible (1 is
    uniform); `confidence`, the largest weight (Voita et al. 2019); attention on the `first` token, on `delimiter`s, on
    it`self`; `rare`, how often the largest weight is on the rarest visible token, above chance; `output`, the norm of
    what it writes over that of its layer, and `inactive`, whether that is at most a tenth of the mean head's of the
    layer (Sandoval-Segura et al. 2025: attention alone misses heads that do nothing); `semantic` (profile.semantic);
    `copying`, whether it raises the logit of the token that it attends to, by its weights (copying.scores).
    And of the whole model, the same in all its rows, `distinct` with `distinct_low`, `distinct_high` (distinct.share).
    """
    model, passed = restored.pack.model, watched.passes(restored, split, chosen["texts"])
    tables = [
        _of_replica(restored, split, chosen["texts"], place, found[watched.OWN]).assign(
            replica=restored.pack.replicas[place].name
        )
        for place, found in passed.items()
    ]
    layers, heads = np.meshgrid(np.arange(model.num_layers), np.arange(model.num_heads), indexing="ij")
    tables = [table.assign(layer=layers.ravel(), head=heads.ravel()) for table in tables]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"replica": pd.Series(dtype=str)})


def _of_replica(restored: Restored, split: str, most: int, replica: int, sums) -> pd.DataFrame:
    total = max(sums.tokens_F.sum(), 1)
    columns = {
        name.replace(" ", "_"): effects.positional(sums, name, 0.0).effect
        for name in (PREVIOUS, *(() if restored.pack.model.causal else (NEXT,)), LOCAL)
    }
    columns |= {"offset": watched.own_offsets({watched.OWN: sums}), "at_offset": effects.at_best_offset(sums, (1, -1))}
    columns |= {name: sums.profile[name].sum(axis=2) / total for name in profile.MEASURES}
    if not watched.delimiters(restored.corpus):
        columns["delimiter"] = np.full_like(columns["delimiter"], np.nan)
    columns["inactive"] = columns["output"] <= INACTIVE * columns["output"].mean(axis=1, keepdims=True)
    columns["semantic"] = _semantic(restored, split, most, replica)
    seen = watched.texts_of(restored, split, most)[replica][watched.OWN]
    tokens = copying.frequent(seen.tokens[:, :-1], seen.length)
    columns["copying"] = copying.scores(restored.params_of(replica), tokens)
    of_heads = distinct.share(*distinct.features(sums))
    table = pd.DataFrame({name: np.ravel(values) for name, values in columns.items()})
    return table.assign(distinct=of_heads.share, distinct_low=of_heads.low, distinct_high=of_heads.high)


def _semantic(restored: Restored, split: str, most: int, replica: int) -> np.ndarray:
    """(L, H)."""
    model, params = restored.pack.model, restored.params_of(replica)
    seen = watched.texts_of(restored, split, most)[replica][watched.OWN]
    one = model.num_heads * model.seq_len**2 * 4
    seen = seen.some(max(2, min(SEMANTIC_TEXTS, SEMANTIC_BYTES // one)))
    tokens, segments = seen.tokens[:, :-1], np.int32(np.arange(model.seq_len) < seen.length[:, None])
    _, intermediates = Transformer(model).apply({"params": params}, tokens, segments, None, True)
    embedding, rows = np.asarray(params["embed"]["embedding"], np.float64), []
    for layer in range(model.num_layers):
        found = np.zeros((len(tokens), model.num_heads, model.seq_len, model.seq_len), np.float32)
        for documents, heads, weights in weights_in_blocks(model, intermediates, layer, segments):
            found[documents, heads] = weights
        rows.append(profile.semantic(found, tokens, seen.length, embedding))
    return np.stack(rows)
