"""What takes a head's place, in a trained-like tiny model, against plain computations."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.importance import ablation, engine
from mha.transformer import Transformer
from tests.eval.heads.test_engine import made
from train.config import InputError
from train.data.gold import EvalWindows


@pytest.fixture(scope="module")
def scene():
    model, params, _ = made(dtype="float32", d_ff=(12,), num_heads=2, d_k=4)
    draw = np.random.default_rng(5)
    tokens = draw.integers(0, model.vocab_size, (12, model.seq_len + 1)).astype(np.uint16)
    length = draw.integers(4, model.seq_len + 1, 12).astype(np.int32)
    zeros, document = np.zeros(12, np.int32), np.repeat(np.arange(4), 3).astype(np.int32)
    return model, params, EvalWindows(tokens, length, zeros, length, document, zeros)


def test_means_are_over_tokens(scene):
    model, params, windows = scene
    mean, scale = ablation.means(model, params, windows)
    segments = jnp.asarray((np.arange(model.seq_len)[None] < windows.length[:, None]).astype(np.int32))
    _, seen = Transformer(model).apply({"params": params}, jnp.asarray(windows.tokens[:, :-1], int), segments)
    outputs = np.concatenate([np.asarray(seen["heads"][0])[row, :n] for row, n in enumerate(windows.length)])
    np.testing.assert_allclose(mean[0], outputs.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scale[0], np.abs(outputs).mean(axis=0), rtol=1e-4)


def test_the_optimal_constant_is_better_than_the_mean_and_than_nothing(scene):
    model, params, windows = scene
    mean, scale = ablation.means(model, params, windows)
    fitted = ablation.optimal(model, params, windows, mean, scale, steps=60)
    zero, average, best = (
        ablation.rises(model, params, windows, fill)[1].sum(axis=-1) for fill in (None, mean, fitted)
    )
    assert (best < np.minimum(zero, average) - 1e-3).all()
    assert not np.allclose(zero, average, atol=1e-3)


def test_rises_are_those_of_the_engine_window_by_window(scene):
    model, params, windows = scene
    whole, rise = ablation.rises(model, params, windows)
    columns = (windows.tokens, windows.length, windows.first, windows.last)
    losses, closed = engine.closed_losses(model, params, columns)
    np.testing.assert_allclose(whole, losses, rtol=1e-5)
    np.testing.assert_allclose(rise, np.asarray(closed) - np.asarray(losses), atol=1e-4)
    summed = ablation.summed_by(windows.document, rise, 4)
    np.testing.assert_allclose(summed[0, 1, 2], rise[0, 1, windows.document == 2].sum())


def test_resampled_outputs_are_of_other_documents(scene):
    model, params, windows = scene
    order = ablation.mixed_order(windows, 4)
    assert sorted(order) == list(range(12))
    for start in range(0, 12, 4):
        documents = windows.document[order[start : start + 4]]
        assert (documents[ablation.partners(documents)] != documents).all()
    assert ablation.partners(np.array([0, 0, 0, 1])).tolist() == [3, 3, 3, 0]
    with pytest.raises(InputError, match="a batch of 3 windows is all of one document"):
        ablation.partners(np.zeros(3))
    _, rise = ablation.rises(model, params, windows, resample=True)
    assert np.abs(rise).max() > 1e-3 and np.isfinite(rise).all()


def test_a_sample_is_spread_over_the_split(monkeypatch, scene):
    _, _, windows = scene
    monkeypatch.setattr(ablation, "eval_windows", lambda *_: windows)
    chosen = ablation.sample(types.SimpleNamespace(), "train", 9, 4)
    assert chosen.document.tolist() == [0, 1, 2, 3] and len(ablation.sample(None, "train", 9, 99).document) == 12
    assert jax.tree.leaves(chosen.tokens)[0].shape == (4, 10)


def test_windows_of_a_document_are_spread_evenly(monkeypatch, scene):
    _, _, windows = scene
    monkeypatch.setattr(ablation, "eval_windows", lambda *_: windows)
    for most, wanted in ((0, 12), (1, 4), (2, 8), (3, 12), (9, 12)):
        chosen = ablation.of_split(None, "test", 9, 0, most)
        assert len(chosen.document) == wanted and set(np.bincount(chosen.document)) == {wanted // 4}
    assert np.array_equal(ablation.of_split(None, "test", 9, 0, 1).tokens, windows.tokens[2::3])
