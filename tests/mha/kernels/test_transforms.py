"""The fast paths under vmap, scan, checkpoint and sharding: the same results as without."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.kernels import dispatch
from tests.mha.kernels import oracle

PATHS = [("heads_minor", 1), ("pairs", 2), ("blockwise", 4)]
SHAPE = (4, 21, 3)  # batch, length, heads
SEGMENTS = jnp.asarray(np.sort(np.random.default_rng(0).integers(0, 3, SHAPE[:2]), axis=1), jnp.int32)


def value_and_grads(path):
    """(q, k, v, d_out, segments) -> output and the three gradients."""

    def run(q, k, v, d_out, segments):
        def attend(q, k, v):
            return dispatch.attend(q, k, v, scale=1.0, causal=True, segments_BT=segments, path=path)

        out, pull = jax.vjp(attend, q, k, v)
        return out, *pull(d_out)

    return run


def close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize("path, d_k", PATHS)
def test_vmap_over_replicas(path, d_k):
    """Replicas with their own data, then with shared segments and a shared key: a batch a replica."""
    replicas = [
        jnp.asarray(np.stack(x)) for x in zip(*(oracle.inputs((*SHAPE, d_k), i) for i in range(3)), strict=True)
    ]
    run = value_and_grads(path)
    segments = jnp.stack([SEGMENTS, SEGMENTS[::-1], jnp.ones_like(SEGMENTS)])
    together = jax.jit(jax.vmap(run))(*replicas, segments)
    one = jax.jit(run)
    for i in range(3):
        close([x[i] for x in together], one(*(x[i] for x in replicas), segments[i]))
    q, k, v, d_out = replicas
    shared = jax.jit(jax.vmap(run, in_axes=(0, None, 0, 0, None)))(q, k[0], v, d_out, SEGMENTS)
    close([x[2] for x in shared], one(q[2], k[0], v[2], d_out[2], SEGMENTS))


@pytest.mark.parametrize("path, d_k", PATHS)
def test_vmap_folds_into_the_batch(path, d_k):
    """No intermediate carries a replica axis beside the batch's: tiles keep the size that fits the cache."""
    x = jnp.ones((5, *SHAPE, d_k))
    text = str(jax.make_jaxpr(jax.vmap(value_and_grads(path), in_axes=(0,) * 4 + (None,)))(x, x, x, x, SEGMENTS))
    inside = text[text.index("while[") :] if "while[" in text else text
    assert f"[{5 * SHAPE[0]}," in inside


@pytest.mark.parametrize("path, d_k", PATHS)
def test_scan_over_layers_with_checkpoint(path, d_k):
    """Gradients through three scanned layers, rematerialised or not, equal those of three layers in a row."""
    x = jnp.asarray(oracle.inputs((*SHAPE, d_k))[0])
    factors = jnp.asarray([0.1, 0.2, 0.3])

    def layer(x, factor, path):
        return x + dispatch.attend(x * factor, x, x, scale=1.0, causal=True, segments_BT=SEGMENTS, path=path)

    def unrolled(x, path):
        for factor in factors:
            x = layer(x, factor, path)
        return (x**2).sum()

    def scanned(x, wrap):
        body = wrap(lambda x, factor: (layer(x, factor, path), None))
        return (jax.lax.scan(body, x, factors)[0] ** 2).sum()

    want = jax.jit(jax.grad(unrolled), static_argnums=1)(x, "reference")
    for wrap in (lambda f: f, jax.checkpoint):
        close([jax.jit(jax.grad(scanned), static_argnums=1)(x, wrap)], [want])


@pytest.mark.parametrize("path, d_k", PATHS)
def test_inside_a_loop_of_steps(path, d_k):
    """Gradient steps in a fori_loop, replicas under lax.map: as a training loop runs it."""
    starts = jnp.stack([jnp.asarray(oracle.inputs((*SHAPE, d_k), i)[0]) for i in range(2)])

    def train(x, path):
        def loss(x):
            out = dispatch.attend(x, x, x, scale=1.0, causal=True, segments_BT=SEGMENTS, path=path)
            return ((out - 1) ** 2).mean()

        return jax.lax.fori_loop(0, 5, lambda _, x: x - jax.grad(loss)(x), x)

    got, want = (jax.jit(lambda xs, p=p: jax.lax.map(lambda x: train(x, p), xs))(starts) for p in (path, "reference"))
    close([got], [want])


@pytest.mark.parametrize("axis", ["batch", "heads"])
def test_sharded(axis):
    """Two devices, batch or heads split between them, in a process of its own."""
    code = f"""
        import jax
        jax.config.update("jax_num_cpu_devices", 2)
        import jax.numpy as jnp
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        from tests.mha.kernels import oracle
        from tests.mha.kernels.test_transforms import PATHS, SEGMENTS, close, value_and_grads

        mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
        spec = P("x") if {axis!r} == "batch" else P(None, None, "x")
        for path, d_k in PATHS:
            arrays = [jnp.asarray(x) for x in oracle.inputs((4, 21, 4, d_k))]
            run = jax.jit(value_and_grads(path))
            want = run(*arrays, SEGMENTS)
            split = [jax.device_put(x, NamedSharding(mesh, spec)) for x in arrays]
            segments = jax.device_put(SEGMENTS, NamedSharding(mesh, P("x") if {axis!r} == "batch" else P()))
            got = run(*split, segments)
            assert len(got[0].sharding.device_set) == 2, got[0].sharding
            close(got, want)
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment, timeout=300)
