"""What single heads read, against a forward pass in NumPy by hand, in float64; and edits under transformations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.edits import Addition, Edits
from tests.mha.naive import (
    MODELS,
    SEGMENTS,
    B,
    L,
    T,
    by_hand,
    close,
    equals_by_hand,
    forward,
    moved,
    normal,
    of,
    tokens,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("logit_scale", ("sqrt", "inverse", "learned", "qk_norm"))
@pytest.mark.parametrize("to", ["all heads", "one head", "several heads"])
def test_patching_what_a_later_layer_reads_of_an_earlier_head(to, logit_scale):
    """What heads of layer 2 read of heads in layer 0 is as on other tokens, for query, key and value alone."""
    config, params = of(logit_scale=logit_scale)
    (_, plain), (_, other) = (forward(config, params, tokens(seed)) for seed in (8, 9))
    theirs = by_hand(config, params, tokens(9))[1]
    w_o = np.asarray(params["block_0"]["attention"]["w_o"])
    written = jnp.einsum("BTHK,HKD->BTHD", other["heads"][0] - plain["heads"][0], w_o)
    sources, additions = {}, {}  # sources: by part and reader
    for first, part in enumerate(("query", "key", "value")):
        if to == "several heads":
            additions[part] = {2: Addition(written[:, :, jnp.array([first, 3])], np.array([2, 0]))}
            sources |= {(part, 2): first, (part, 0): 3}
        else:
            readers = [3] if to == "one head" else range(4)
            additions[part] = {2: Addition(written[:, :, first], [3] if to == "one head" else None)}
            sources |= {(part, head): first for head in readers}

    def reads(layer, head, part, x, wrote):
        if layer < 2 or (part, head) not in sources:
            return x
        source = sources[part, head]
        return x - wrote[0, source] + theirs[0, source] @ w_o[source]

    seen = equals_by_hand(config, params, 8, Edits(**additions), reads=reads)
    for head in range(4):
        same = np.array_equal(seen["heads"][2][:, :, head], plain["heads"][2][:, :, head])
        assert same == (("query", head) not in sources), "heads that read what they did give the same bits"
    close([seen[name][:2] for name in ("residual", "heads")], [plain[name][:2] for name in ("residual", "heads")], 0)


@pytest.mark.parametrize("model", MODELS)
def test_one_addition_to_all_heads_is_an_edited_stream(model):
    """However it is written: once, for each head, or for heads that are counted out."""
    config, params = of(**MODELS[model])
    heads, add = config.num_heads, normal(5, (B, T, 8))
    each = np.repeat(add[:, :, None], heads, axis=2)
    forms = [Addition(add), Addition(add, np.arange(heads)), Addition(each), Addition(each, np.arange(heads)[::-1])]
    reads = lambda layer, head, part, x, wrote: x + add if layer == 1 else x  # noqa: E731
    for form in forms:
        equals_by_hand(config, params, 10, Edits(query={1: form}, key={1: form}, value={1: form}), reads=reads)


def mixed(heads, batch=B):
    """Every kind of edit at once."""
    gates = np.random.default_rng(3).uniform(size=(L, batch, heads))
    fill = [normal(6, (heads, 2)), None, normal(7, (batch, T, heads, 2))]
    one, many = Addition(normal(8, (batch, T, 8)), np.array([0])), Addition(normal(9, (batch, T, heads, 8)))
    return Edits(gates, fill, query={1: one}, key={0: many, 2: one}, value={2: many})


@pytest.mark.slow
def test_recomputed_and_looped_layers_take_the_same_edits():
    """Gradients in gates, fills and additions too; edits of one form ride along the loop, others unroll it."""
    config, params = of(logit_scale="qk_norm")
    everywhere = {layer: Addition(normal(layer, (B, T, 8))) for layer in range(L)}
    alike = Edits(np.full((L, 4), 0.5), normal(10, (L, 4, 2)), key=everywhere)

    def gradient(edits, **options):
        leaves, tree = jax.tree.flatten(edits)
        floats = {place: leaf for place, leaf in enumerate(leaves) if leaf.dtype == float}
        model = dataclasses.replace(config, **options)

        def loss(floats):
            given = jax.tree.unflatten(tree, [floats.get(place, leaf) for place, leaf in enumerate(leaves)])
            logits, seen = forward(model, params, tokens(11), given)
            return jnp.sum(jnp.sin(logits)) + sum(jnp.sum(z**2) for z in seen["heads"])

        return jax.jit(jax.value_and_grad(loss))(floats), str(jax.make_jaxpr(loss)(floats)).count(" scan[")

    for edits, loops, every in (
        (mixed(4), 0, [dict(remat="block"), dict(remat="elementwise"), dict(scan_layers=True)]),
        (alike, 1, [dict(scan_layers=True)]),
    ):
        wanted, _ = gradient(edits)
        assert all(np.abs(leaf).max() > 1e-4 for leaf in wanted[1].values())
        for options in every:
            got, looped = gradient(edits, **options)
            close(got, wanted, 1e-9)
            assert looped == (loops if "scan_layers" in options else 0)


@pytest.mark.parametrize("logit_scale", ["learned", "qk_norm"])
def test_gradients_are_finite_differences(logit_scale):
    config, params = of(logit_scale=logit_scale)
    heads = np.array([2, 0])
    x = dict(
        gates=np.full((L, B, 4), 0.7),
        fill=normal(12, (L, 4, 2)),
        one=normal(13, (B, T, 8)),
        two=normal(14, (B, T, 2, 8)),
    )

    @jax.jit
    def loss(x):
        key = {1: Addition(x["one"])}
        query = {2: Addition(x["two"], heads)}
        edits = Edits(x["gates"], x["fill"], query, key, {1: Addition(x["two"], heads)})
        return jnp.sum(jnp.sin(forward(config, params, tokens(12), edits)[0]))

    gradient = jax.jit(jax.grad(loss))(x)
    for name in x:
        along = {other: np.zeros_like(array) for other, array in x.items()} | {name: normal(15, x[name].shape)}
        up, down = (loss(jax.tree.map(lambda a, b: a + step * b, x, along)) for step in (1e-5, -1e-5))  # noqa: B023
        slope = float(jnp.vdot(gradient[name], along[name]))
        np.testing.assert_allclose((up - down) / 2e-5, slope, rtol=1e-6)
        assert abs(slope) > 1e-3


def test_replicas_in_one_program():
    """Each with its own parameters and edits, the heads that they choose among them."""
    config, first = of()
    second = jax.tree.map(lambda w: w * 1.5, first)
    pairs = [mixed(4), jax.tree.map(lambda x: x + 1 if x.dtype == int else x / 2, mixed(4))]
    stack = lambda *trees: jax.tree.map(lambda *each: jnp.stack(each), *trees)  # noqa: E731
    together = jax.jit(jax.vmap(lambda params, edits: forward(config, params, tokens(13), edits)[0]))
    got = together(stack(first, second), stack(*pairs))
    for row, (params, edits) in enumerate(zip((first, second), pairs, strict=True)):
        close(got[row], forward(config, params, tokens(13), edits)[0])
        assert moved(got[row], forward(config, params, tokens(13))[0])


@pytest.mark.parametrize(
    "d_k, path, dtype, tolerance",
    [
        (1, "heads_minor", "float32", 2e-5),
        (2, "pairs", "bfloat16", 0.2),
        (2, "blockwise", "float32", 2e-5),
        (2, "reference", "bfloat16", 0.2),
    ],
)
def test_paths_and_dtypes(d_k, path, dtype, tolerance):
    """Every attention path takes edits, at T = 11 that no block divides, and keeps the dtype of the stream."""
    config, params = of(d_k=d_k, attention=path, dtype=dtype)
    edits = mixed(4)
    edits = edits._replace(fill=[None if fill is None else fill[..., :d_k] for fill in edits.fill])
    exact = dataclasses.replace(config, attention="reference", dtype="float64")
    got, seen = forward(config, params, tokens(14), edits)
    wanted = forward(exact, params, tokens(14), edits)[0]
    visible = SEGMENTS != 0
    assert np.abs(got - wanted)[visible].max() < tolerance
    assert moved(wanted, forward(exact, params, tokens(14))[0], 2 * tolerance)
    assert seen["heads"][2].dtype == seen["residual"][-1].dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("logit_scale", ["sqrt", "qk_norm"])
@pytest.mark.parametrize("shape", [(B, T, 8), (B, T, 1, 8)])
def test_a_head_chosen_under_jit_that_is_not_there_shows(shape, logit_scale):
    config, params = of(logit_scale=logit_scale)
    for head in (3, 4):
        edits = Edits(key={1: Addition(normal(16, shape), np.array([head]))})
        found = jax.jit(lambda edits: forward(config, params, tokens(15), edits)[0])(edits)  # noqa: B023
        assert np.isfinite(found).all() == (head < 4)
