"""Heads that are gone give the logits of heads whose gates are closed; a smaller model is a checkpoint like others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.importance import engine, orders, prune
from mha.transformer import Transformer
from tests.eval.heads.test_engine import made
from train.run import checkpoint

REMOVED = {
    "some": [(0, 1), (1, 0), (1, 2), (1, 3)],
    "a layer": [(0, head) for head in range(4)],
    "all": list(np.ndindex(2, 4)),
    "none": [],
}


@pytest.mark.parametrize("removed", REMOVED)
def test_masked_is_removed(removed):
    with jax.enable_x64(True):
        model, params, columns = made(d_ff=(12, 12), logit_scale="learned")
        smaller, pruned = prune.prune_params(model, params, REMOVED[removed])
        gates = jnp.asarray(orders.gates(model, REMOVED[removed]))
        masked = engine.losses(model, params, columns, gates)
        np.testing.assert_allclose(engine.losses(smaller, pruned, columns), masked, rtol=1e-6)
        shapes = jax.eval_shape(Transformer(smaller).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
        assert jax.tree.map(jnp.shape, pruned) == jax.tree.map(lambda leaf: leaf.shape, shapes)
        assert smaller.num_heads == {"some": 3, "a layer": 4, "all": 1, "none": 4}[removed]
        whole = engine.losses(model, params, columns)
        assert np.allclose(whole, masked) == (removed == "none")


def test_what_is_left_restores(tmp_path):
    model, params, columns = made(dtype="float32", d_ff=(12, 12))
    smaller, pruned = prune.prune_params(model, params, REMOVED["some"])
    with checkpoint.Saver(tmp_path) as saver:
        saver.save(0, {"params": pruned}, {})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(Transformer(smaller).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)
    restored = checkpoint.restore(tmp_path, 0, {"params": abstract})["params"]
    jax.tree.map(np.testing.assert_array_equal, restored, pruned)
    np.testing.assert_array_equal(engine.losses(smaller, restored, columns), engine.losses(smaller, pruned, columns))


def test_a_norm_over_all_heads_is_refused():
    model, params, _ = made(dtype="float32", d_ff=(12,), logit_scale="qk_norm")
    with pytest.raises(ValueError, match="close their gates instead"):
        prune.prune_params(model, params, [(0, 0)])
