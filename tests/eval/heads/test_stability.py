"""The measurement of stability: runs whose heads are another's in another order, pruned heads, equal weights."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.measure import stability
from mha.transformer import ModelConfig, Transformer
from tests.eval.heads import restored
from train.config import InputError
from train.data.corpora import Corpus

CONFIG = ModelConfig(13, 9, 8, 4, 2, (16, 16), attention="reference")


def drawn(seed):
    return restored.drawn(CONFIG, seed, 3.0)


def reordered(params, order):
    """The same model, its heads under other numbers."""
    params = jax.tree.map(np.copy, params)
    for block in ("block_0", "block_1"):
        attention = params[block]["attention"]
        for name in ("w_q", "w_k", "w_v"):
            attention[name] = attention[name][:, order]
        attention["w_o"] = attention["w_o"][order]
    return params


def corpus(documents=12):
    tokens = np.random.default_rng(0).integers(0, 13, documents * 10)
    spans = {"train": (0, 0), "tune": (0, 0), "test": (0, documents)}
    names = tuple(map(str, range(documents)))
    return Corpus(tokens, np.arange(documents + 1) * 10, names, spans, "made up", "document")


def pack(params, **changes):
    made = restored.of(CONFIG, params, corpus=changes.pop("corpus", corpus()), **changes)
    sections = {"grid": {"tuning_seeds": ()}, "train": {"keep_checkpoints": ()}}
    made.__dict__["study"] = types.SimpleNamespace(**{k: types.SimpleNamespace(**v) for k, v in sections.items()})
    return made


def test_heads_under_other_numbers_agree_once_matched():
    first, order = drawn(0), [2, 0, 3, 1]
    rows = stability.measure_cell(
        [pack([first, drawn(1)]), pack([reordered(first, order)], seeds=[(2, 5)])], "test", {}, {}
    )
    assert len(rows) == 3 * 2 and rows.left_out.eq(0).all() and rows.layer.tolist() == [0, 1] * 3
    same = rows[rows.other == "lr0.01_i2_d5"].set_index("replica")
    np.testing.assert_allclose(same.loc["lr0.01_i0_d0"].matched, 1, atol=1e-5)
    assert (same.loc["lr0.01_i0_d0"].by_index < 0.99).all() and (same.loc["lr0.01_i1_d1"].matched < 0.99).all()
    assert same.other_init.eq(2).all() and same.other_data.eq(5).all()
    assert stability.measure_cell([pack([first, drawn(1)])], "tune", {}, {}).empty


def test_it_is_what_correlating_the_patterns_at_once_gives(monkeypatch):
    runs = [drawn(0), drawn(1)]
    at_once = stability.measure_cell([pack(runs)], "test", {}, {})
    monkeypatch.setattr(stability, "BUDGET_BYTES", 1)
    np.testing.assert_allclose(
        stability.measure_cell([pack(runs)], "test", {}, {}).by_index, at_once.by_index, rtol=1e-5
    )
    tokens, (query, key) = corpus().tokens.reshape(12, 10)[:, :9], np.tril_indices(9)
    patterns = []
    for params in runs:
        _, seen = Transformer(CONFIG).apply({"params": params}, jnp.asarray(tokens), want_queries=True)
        logits = np.einsum("BTHK,BSHK->BHTS", seen["query"][1], seen["key"][1]) / np.sqrt(2)
        logits = np.where(np.tril(np.ones((9, 9))) > 0, logits, -np.inf)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        patterns.append(weights[:, :, query, key][..., query > 0])
    halves = [
        np.corrcoef(patterns[0][half::2, head].ravel(), patterns[1][half::2, head].ravel())[0, 1]
        for half in (0, 1)
        for head in range(4)
    ]
    np.testing.assert_allclose(at_once.by_index[1], np.mean(halves), rtol=1e-4)


def test_pruned_heads_and_diverged_runs_are_left_out():
    pruned = drawn(1)
    pruned["block_1"]["attention"]["w_o"][[0, 2]] = 0
    rows = stability.measure_cell([pack([drawn(0), pruned, drawn(2)], diverged_at=[-1, -1, 7])], "test", {}, {})
    assert len(rows) == 2 and rows.left_out.tolist() == [0, 2]


def test_seeds_with_equal_weights_are_refused():
    with pytest.raises(InputError, match="lr0.01_i0_d0 and lr0.01_i1_d1 have equal weights"):
        stability.measure_cell([pack([drawn(0), drawn(0)])], "test", {}, {})


def test_one_window_is_refused():
    with pytest.raises(InputError, match="is 1 window"):
        stability.measure_cell([pack([drawn(0), drawn(1)], corpus=corpus(1))], "test", {}, {})
