"""Restored packs without a workdir, of models with given weights."""

import jax
import numpy as np

from eval.restore import Restored
from mha.transformer import Transformer
from train.grid import Replica
from train.run.packs import Pack


def drawn(config, seed=0, scale=1.0) -> dict:
    """Weights about `scale` times as large as initialised, and gains that are not 1."""
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), np.zeros((1, 2), int))["params"]
    random = np.random.default_rng(seed)

    def leaf(shape):
        if len(shape.shape) == 1:
            return (1 + 0.3 * np.cos(np.arange(shape.size))).astype(shape.dtype)
        return (scale * random.normal(size=shape.shape) / np.sqrt(config.d_model)).astype(shape.dtype)

    return jax.tree.map(leaf, shapes)


def of(model, params, diverged_at=None, seeds=None, corpus=None, starts=None) -> Restored:
    """The pack of models whose weights are the list `params`; replica i has the (init seed, data seed) `seeds[i]`, or
    (i, i), and the start `starts[i]`."""
    seeds, starts = seeds or [(i, i) for i in range(len(params))], starts or ["drawn"] * len(params)
    replicas = tuple(Replica(0.01, *pair, start) for pair, start in zip(seeds, starts, strict=True))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params)
    lost = np.array(diverged_at or [-1] * len(params))
    return Restored("cell", Pack(0, model, replicas, "scan", {}), stacked, lost, 10, {}, corpus)
