"""The engine against one forward pass a closed head, by `Edits`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.importance import engine
from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer
from train.losses.token_loss import token_losses

CONFIG = ModelConfig(
    vocab_size=13, seq_len=9, d_model=8, num_heads=4, d_k=2, d_ff=(12, 12, 16), attention="reference", dtype="float64"
)
SHAPES = {
    "four heads": {},
    "one head": {"num_heads": 1, "d_k": 8, "d_ff": (12,), "logit_scale": "inverse"},
    "d_k = 1": {"num_heads": 8, "d_k": 1, "d_ff": (12, 12), "logit_scale": "qk_norm"},
}


def made(seed=0, **options):
    """A model, its parameters, and the columns of five windows, the last of which counts nothing."""
    model = dataclasses.replace(CONFIG, **options)
    draw, dtype = np.random.default_rng(seed), jnp.dtype(model.dtype)
    init = lambda: Transformer(model).init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))["params"]  # noqa: E731
    gain = lambda shape: 1.0 if len(shape) == 1 else 0.0  # noqa: E731
    drawn = lambda leaf: jnp.asarray(gain(leaf.shape) + 0.4 * draw.normal(size=leaf.shape), dtype)  # noqa: E731
    params = jax.tree.map(drawn, jax.eval_shape(init))
    tokens = draw.integers(0, model.vocab_size, (5, model.seq_len + 1)).astype(np.uint16)
    length = np.array([9, 9, 5, 7, 0], np.int32)
    return model, params, (tokens, length, np.array([0, 4, 0, 0, 0], np.int32), length)


def naive(model, params, columns, closed, fill=None, gates=None):
    """Summed loss (B,) with the head `closed`, a forward pass of its own; `fill` by layer."""
    tokens, length, first, last = columns
    index = np.arange(model.seq_len)[None]
    segments = jnp.asarray((index < length[:, None]).astype(np.int32))
    gates = np.ones((model.num_layers, model.num_heads)) if gates is None else np.array(gates)
    gates[closed] = 0
    log_p = _log_p(model, params, jnp.asarray(tokens[:, :-1], int), segments, Edits(jnp.asarray(gates), fill))
    losses = -np.take_along_axis(np.asarray(log_p), tokens[:, 1:, None].astype(int), axis=-1)[..., 0]
    return np.where((index >= first[:, None]) & (index < last[:, None]), losses, 0).sum(axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _log_p(model, params, tokens, segments, edits):
    return jax.nn.log_softmax(Transformer(model).apply({"params": params}, tokens, segments, edits)[0])


def heads(model):
    return [(layer, head) for layer in range(model.num_layers) for head in range(model.num_heads)]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("shape", SHAPES)
def test_each_head_closed_is_a_forward_pass_with_its_gate_closed(shape, x64):
    model, params, columns = made(**SHAPES[shape])
    draw = np.random.default_rng(1)
    vectors = jnp.asarray(draw.normal(size=(model.num_layers, model.num_heads, model.d_k)))
    gates = np.array(draw.random((model.num_layers, model.num_heads)) < 0.6, float)
    for fill, gated in ((None, None), (vectors, gates)):
        whole, closed = engine.closed_losses(model, params, columns, fill, gated)
        assert np.allclose(whole, engine.losses(model, params, columns, gated, fill), rtol=1e-12)
        for head in heads(model):
            wanted = naive(model, params, columns, head, None if fill is None else list(fill[:, None, None]), gated)
            np.testing.assert_allclose(closed[head], wanted, rtol=1e-12, atol=1e-12)
            alone = gated is not None and not gated[head]
            assert alone == np.allclose(closed[head], whole, rtol=1e-9), "each gate changes what is not closed yet"


def test_another_window_takes_a_heads_place(x64):
    model, params, columns = made(d_ff=(12, 16))
    partner = np.array([2, 0, 3, 1, 0])
    _, closed = engine.closed_losses(model, params, columns, partner_B=jnp.asarray(partner))
    tokens, length, *_ = columns
    segments = jnp.asarray((np.arange(model.seq_len)[None] < length[:, None]).astype(np.int32))
    apply = jax.jit(Transformer(model).apply)
    _, seen = apply({"params": params}, jnp.asarray(tokens[:, :-1], int), segments)
    place = np.arange(model.seq_len)[None] % np.maximum(length[partner], 1)[:, None]
    fill = [np.take_along_axis(np.asarray(z)[partner], place[:, :, None, None], axis=1) for z in seen["heads"]]
    for head in heads(model):
        np.testing.assert_allclose(closed[head], naive(model, params, columns, head, fill), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("group, attention", [(2, "blockwise"), (4, "reference")])
def test_in_float32_any_group_gives_the_same(group, attention):
    model, params, columns = made(dtype="float32", attention=attention, d_ff=(12, 16))
    whole, closed = engine.closed_losses(model, params, columns, group=group)
    for head in heads(model):
        np.testing.assert_allclose(closed[head], naive(model, params, columns, head), rtol=1e-5, atol=1e-5)
    tokens, length, *_ = columns
    segments = jnp.asarray((np.arange(model.seq_len)[None] < length[:, None]).astype(np.int32))
    plain = jax.jit(token_losses, static_argnums=0)(model, params, jnp.asarray(tokens, int), segments)
    np.testing.assert_allclose(whole[2], plain[2, : length[2]].sum(), rtol=1e-5)


def test_groups_divide_the_heads_and_keep_the_budget():
    model = dataclasses.replace(CONFIG, num_heads=6, d_k=1)
    assert [engine.group_of(model, 4, budget) for budget in (1, 10**9)] == [1, 3]
    assert engine.group_of(dataclasses.replace(CONFIG, num_heads=7), 4, 10**9) == 1


def test_batches_hold_every_window_once():
    model, params, columns = made(dtype="float32", d_ff=(12,))

    class Few:
        tokens, length, first, last = columns
        document = np.arange(5)

    found = engine.batches(Few, 2)
    assert np.concatenate([numbers for numbers, _ in found]).tolist() == [0, 1, 2, 3, 4, -1]
    sums = np.concatenate([engine.losses(model, params, batch) for _, batch in found])
    np.testing.assert_allclose(sums[:5], engine.losses(model, params, columns), rtol=1e-5)
    assert sums[5] == 0
