"""Training steps: against a plain Optax loop, across replicas, and across lengths of a dispatch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from mha.transformer import ModelConfig
from train.config import freeze
from train.losses import token_loss
from train.run import optimizer, step

BOS = 256
MODEL = ModelConfig(257, 8, 8, 2, 4, (16,), attention="reference")
TRAIN = dataclasses.replace(freeze(default.get_config().to_dict()).train, steps=20, warmup_steps=4)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 257, 4000), jnp.uint16)
RATES = jnp.array([0.01, 0.03, 0.01])
SEEDS = jnp.array([0, 0, 1], jnp.uint32)
STARTS = jnp.asarray(np.random.default_rng(1).integers(0, 3900, (2, 8, 4))[[0, 0, 1]], jnp.int32)


@functools.cache
def program(replica_map):
    return jax.jit(functools.partial(step.run, MODEL, TRAIN, replica_map, BOS))


def trained(replica_map="scan", rows=slice(None), counts=(8,)):
    state, first = step.init(MODEL, TRAIN, SEEDS[rows]), 0
    losses = []
    for count in counts:
        starts = jnp.roll(STARTS[rows], -first, axis=1)
        state, metrics = program(replica_map)(state, TOKENS, starts, RATES[rows], first, count)
        losses.append(metrics["loss"][:, :count])
        first += count
    return state, jnp.concatenate(losses, axis=1)


def largest_difference(one, other):
    return max(float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def same_bits(one, other):
    return all(bool(jnp.all(a == b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_it_is_adamw_with_clipping_and_a_schedule():
    state, losses = trained(rows=slice(1, 2))
    schedule = optax.warmup_cosine_decay_schedule(0.0, float(RATES[1]), TRAIN.warmup_steps, TRAIN.steps)
    matrices = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)  # noqa: E731
    adamw = optax.adamw(schedule, b2=0.98, weight_decay=TRAIN.weight_decay, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(TRAIN.clip_norm), adamw)
    params = jax.tree.map(lambda leaf: leaf[0], step.init(MODEL, TRAIN, SEEDS[1:2]).params)
    opt_state = optimizer.init(params)
    windows = TOKENS[STARTS[1][:, :, None] + jnp.arange(9)[None, None]].astype(jnp.int32)
    gradient = jax.jit(jax.value_and_grad(functools.partial(step.batch_loss, MODEL, BOS)))
    update = jax.jit(optimizer.update)
    for index in range(8):
        loss, grads = gradient(params, windows[index])
        np.testing.assert_allclose(loss, losses[0, index], rtol=2e-5)
        updates, opt_state = update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    assert largest_difference(params, jax.tree.map(lambda leaf: leaf[0], state.params)) < 2e-5


@pytest.mark.slow
def test_what_is_recomputed_changes_neither_the_start_nor_the_course():
    recomputing = dataclasses.replace(MODEL, remat="block")
    state, losses = trained()
    begun = step.init(recomputing, TRAIN, SEEDS)
    assert same_bits(begun, step.init(MODEL, TRAIN, SEEDS))
    run = jax.jit(functools.partial(step.run, recomputing, TRAIN, "scan", BOS))
    ended, metrics = run(begun, TOKENS, STARTS, RATES, 0, 8)
    np.testing.assert_allclose(metrics["loss"][:, :8], losses, rtol=1e-5)
    assert largest_difference(ended.params, state.params) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("replica_map", ["scan", "vmap"])
def test_scanned_layers_train_alike(replica_map):
    """With a fast attention path inside, whose vmap is folded into the batch."""
    found = {}
    for scanned in (False, True):
        model = dataclasses.replace(MODEL, d_ff=(16, 16, 16), attention="blockwise", scan_layers=scanned, remat="block")
        run = jax.jit(functools.partial(step.run, model, TRAIN, replica_map, BOS))
        found[scanned] = run(step.init(model, TRAIN, SEEDS), TOKENS, STARTS, RATES, 0, 8)
    np.testing.assert_allclose(found[True][1]["loss"], found[False][1]["loss"], rtol=1e-5)
    assert largest_difference(found[True][0].params, found[False][0].params) < 1e-4


def test_a_replica_alone_is_the_same_among_others():
    together, losses = trained()
    for row in range(3):
        alone, lone_losses = trained(rows=slice(row, row + 1))
        np.testing.assert_allclose(losses[row], lone_losses[0], rtol=1e-5)
        assert largest_difference(alone.params, jax.tree.map(lambda leaf: leaf[row : row + 1], together.params)) < 1e-5  # noqa: B023


def test_vmap_and_scan_agree():
    (one, losses), (other, other_losses) = trained("scan"), trained("vmap")
    np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
    assert largest_difference(one.params, other.params) < 1e-5


@pytest.mark.parametrize("replica_map", ["scan", "vmap"])
def test_the_length_of_a_dispatch_does_not_shape_the_bits(replica_map):
    (one, losses), (other, other_losses) = trained(replica_map), trained(replica_map, counts=(1, 5, 2))
    assert same_bits(one, other) and same_bits(losses, other_losses)


def test_one_compile_serves_every_rate_and_seed():
    run = program("scan")
    trained()
    compiled = run._cache_size()
    state = step.init(MODEL, TRAIN, SEEDS + jnp.uint32(5))
    run(state, TOKENS, STARTS, RATES * 2, 3, 4)
    assert run._cache_size() == compiled


def test_replicas_differ_by_seed_and_rate():
    state, losses = trained()
    assert losses[0, 0] == losses[1, 0] != losses[2, 0]
    assert losses[0, -1] != losses[1, -1]


def test_segments_begin_at_bos_and_bos_is_no_target():
    tokens = jnp.array([[5, BOS, 7, 8, BOS, 9, 3, 1, 2]])
    np.testing.assert_array_equal(token_loss.segments(tokens, BOS), [[1, 2, 2, 2, 3, 3, 3, 3, 3]])
    params = jax.tree.map(lambda leaf: leaf[0], step.init(MODEL, TRAIN, SEEDS[:1]).params)
    losses = token_loss.token_losses(MODEL, params, tokens, token_loss.segments(tokens[:, :-1], BOS))
    kept = jnp.array([False, True, True, False, True, True, True, True])[None]
    wanted = jnp.sum(jnp.where(kept, losses, 0)) / 6
    np.testing.assert_allclose(step.batch_loss(MODEL, BOS, params, tokens), wanted, rtol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_batch(parts):
    """Though the parts count different numbers of tokens, one of them none."""
    tokens = TOKENS[STARTS[0, 0][:, None] + jnp.arange(9)[None]].astype(jnp.int32)
    tokens = tokens.at[0, 3:].set(BOS).at[1].set(BOS)
    params = jax.tree.map(lambda leaf: leaf[0], step.init(MODEL, TRAIN, SEEDS[:1]).params)
    loss_of, count_of = functools.partial(step.batch_loss, MODEL, BOS), lambda rows: jnp.sum(rows[:, 1:] != BOS)
    whole = jax.value_and_grad(loss_of)(params, tokens)
    cut = jax.jit(lambda params: step.value_and_grad(loss_of, count_of, parts, params, tokens))(params)
    assert largest_difference(whole, cut) < 1e-6


def test_a_program_that_accumulates_trains_alike_in_less_memory():
    shapes = step.init(MODEL, TRAIN, SEEDS[:1]), TOKENS, jnp.tile(STARTS[:1], (1, 1, 16)), RATES[:1], 0, 8
    found = {}
    for parts in (1, 16):
        config = dataclasses.replace(TRAIN, accumulate=parts)
        run = jax.jit(functools.partial(step.run, MODEL, config, "scan", BOS)).lower(*shapes).compile()
        found[parts] = *run(*shapes), run.memory_analysis().temp_size_in_bytes
    assert largest_difference(found[1][1]["loss"], found[16][1]["loss"]) < 1e-5
    assert largest_difference(found[1][0].params, found[16][0].params) < 1e-4
    assert found[16][2] < found[1][2] / 2


def test_a_constant_rate_needs_no_warm_up():
    for warmup, first in ((0, 1.0), (4, 0.0)):
        schedule = optimizer.schedule(dataclasses.replace(TRAIN, schedule="constant", warmup_steps=warmup))
        assert float(schedule(0)) == first and float(schedule(4)) == 1.0
