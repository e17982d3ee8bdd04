"""Properties of the whole model: causality, independence of rows and packed documents, gates, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.edits import Edits
from mha.transformer import ModelConfig, Transformer, weights_in_blocks

CONFIG = ModelConfig(
    vocab_size=17, seq_len=12, d_model=8, num_heads=4, d_k=2, d_ff=(16, 15), attention="reference", dtype="float64"
)
L, H = CONFIG.num_layers, CONFIG.num_heads


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def params():
    return Transformer(CONFIG).init(jax.random.key(0), tokens(0))["params"]


def tokens(seed, rows=3, length=12):
    return jax.random.randint(jax.random.key(seed), (rows, length), 0, CONFIG.vocab_size)


@jax.jit
def logits(params, tokens, segments=None, gates=None):
    return Transformer(CONFIG).apply({"params": params}, tokens, segments, Edits(gates))[0]


def test_later_tokens_do_not_reach_earlier_logits(params):
    one, other = tokens(1), tokens(1).at[:, 7:].set(tokens(2)[:, 7:])
    np.testing.assert_array_equal(logits(params, one)[:, :7], logits(params, other)[:, :7])
    assert jnp.abs(logits(params, one) - logits(params, other))[:, 7:].max() > 1e-3


def test_rows_of_a_batch_are_independent(params):
    batch = tokens(3)
    alone = jnp.concatenate([logits(params, row[None]) for row in batch])
    np.testing.assert_allclose(logits(params, batch), alone, rtol=1e-12, atol=1e-12)


def test_packed_documents_equal_the_documents_alone(params):
    first, second = tokens(4, 1, 5), tokens(5, 1, 7)
    packed = jnp.concatenate([first, second], axis=1)
    segments = jnp.array([[1] * 5 + [2] * 7])
    alone = jnp.concatenate([logits(params, first), logits(params, second)], axis=1)
    np.testing.assert_allclose(logits(params, packed, segments), alone, rtol=1e-12, atol=1e-12)
    assert jnp.abs(logits(params, packed) - alone).max() > 1e-3


def test_padding_changes_nothing(params):
    document = tokens(6, 1, 5)
    padded = jnp.pad(document, ((0, 0), (0, 7)))
    segments = (jnp.arange(12)[None] < 5).astype(jnp.int32)
    np.testing.assert_allclose(
        logits(params, padded, segments)[:, :5], logits(params, document), rtol=1e-12, atol=1e-12
    )
    assert jnp.all(jnp.isfinite(logits(params, padded, segments)))


def test_gates(params):
    batch = tokens(7)
    whole = logits(params, batch)
    np.testing.assert_array_equal(logits(params, batch, None, jnp.ones((L, H))), whole)
    for layer in range(L):
        for head in range(H):
            gated = logits(params, batch, None, jnp.ones((L, H)).at[layer, head].set(0.0))
            cut = jax.tree.map(lambda leaf: leaf, params)
            w_o = cut[f"block_{layer}"]["attention"]["w_o"]
            cut[f"block_{layer}"]["attention"]["w_o"] = w_o.at[head].set(0.0)
            np.testing.assert_allclose(gated, logits(cut, batch), rtol=1e-12, atol=1e-12)
            assert jnp.abs(gated - whole).max() > 1e-4


@pytest.mark.parametrize("remat", ["elementwise", "block"])
def test_recomputed_activations_change_no_gradient(remat, params):
    """And are recomputed: the gradient has more operations."""
    gates, segments = jax.random.uniform(jax.random.key(3), (L, H)), jnp.ones((3, 12), jnp.int32)

    def gradient(config):
        def loss(params, gates):
            logits_BTV, out = Transformer(config).apply({"params": params}, tokens(1), segments, Edits(gates))
            return jnp.sum(jnp.sin(logits_BTV)) + jnp.sum(out["heads"][1] ** 2)

        return jax.jit(jax.grad(loss, (0, 1)))

    recomputing = dataclasses.replace(CONFIG, remat=remat)
    same = Transformer(recomputing).init(jax.random.key(0), tokens(0))["params"]
    jax.tree.map(np.testing.assert_array_equal, same, params)
    ours, plain = gradient(recomputing)(params, gates), gradient(CONFIG)(params, gates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12), ours, plain)
    products, exps = (
        [str(jax.make_jaxpr(gradient(config))(params, gates)).count(word) for config in (recomputing, CONFIG)]
        for word in (" dot_general", " exp ")
    )
    assert exps[0] > exps[1] and (products[0] > products[1] or remat == "elementwise")
    _, seen = Transformer(recomputing).apply({"params": params}, tokens(1), want_queries=True)
    assert seen["query"][0].shape == (3, 12, H, 2)


@pytest.mark.parametrize("remat", ["none", "block"])
def test_scanned_layers_are_the_unrolled_ones(remat):
    """Same start, outputs and gradients; each run of one width is a loop, so that depth adds no operations."""
    unrolled = dataclasses.replace(CONFIG, d_ff=(16, 16, 15, 15, 15), remat=remat)
    scanned = dataclasses.replace(unrolled, scan_layers=True)
    params = Transformer(unrolled).init(jax.random.key(0), tokens(0))["params"]
    jax.tree.map(
        np.testing.assert_array_equal, Transformer(scanned).init(jax.random.key(0), tokens(0))["params"], params
    )
    gates, segments = jax.random.uniform(jax.random.key(3), (5, H)), jnp.ones((3, 12), jnp.int32)

    def value_and_gradient(config):
        def loss(params, gates):
            logits_BTV, out = Transformer(config).apply({"params": params}, tokens(1), segments, Edits(gates), True)
            return jnp.sum(jnp.sin(logits_BTV)) + sum(jnp.sum(x**2) for x in out["heads"]), out

        return jax.value_and_grad(loss, (0, 1), has_aux=True)

    ours, plain = (jax.jit(value_and_gradient(config))(params, gates) for config in (scanned, unrolled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, plain)
    deeper = dataclasses.replace(scanned, d_ff=(16,) * 4 + (15,) * 5)
    more = Transformer(deeper).init(jax.random.key(0), tokens(0))["params"]
    products = [
        str(jax.make_jaxpr(value_and_gradient(config))(weights, jnp.ones((config.num_layers, H)))).count(" dot_general")
        for config, weights in ((scanned, params), (deeper, more), (unrolled, params))
    ]
    assert products[0] == products[1] < products[2] / 2


def test_scanned_layers_keep_one_residual_each():
    """Where all else of a block is recomputed: six layers more need six residuals more, and their parameters."""

    def temporaries(layers):
        config = dataclasses.replace(CONFIG, d_ff=(16,) * layers, remat="block", scan_layers=True)
        params = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens(0))["params"]
        loss = lambda params, batch: jnp.sum(jnp.sin(Transformer(config).apply({"params": params}, batch)[0]))  # noqa: E731
        compiled = jax.jit(jax.grad(loss)).lower(params, tokens(0, rows=64)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    residual = 64 * 12 * CONFIG.d_model * 8
    assert 6 * residual < temporaries(12) - temporaries(6) < 1.5 * 6 * residual


def test_intermediates(params):
    _, out = Transformer(CONFIG).apply({"params": params}, tokens(8), want_queries=True)
    assert set(out) == {"residual", "heads", "query", "key", "value"}
    assert [x.shape for x in out["residual"]] == [(3, 12, 8)] * (L + 1)
    for name in ("heads", "query", "key", "value"):
        assert [x.shape for x in out[name]] == [(3, 12, 4, 2)] * L


@pytest.mark.parametrize("d_k, fast", [(1, "heads_minor"), (2, "pairs"), (4, "blockwise")])
def test_weights_do_not_depend_on_the_attention_path(d_k, fast):
    """And are those by which each path weighs its values, in blocks of one head of one document."""
    segments = jnp.array([[1] * 5 + [2] * 7, [1] * 12, [1] * 9 + [0] * 3])
    found = {}
    for path in ("reference", fast):
        config = dataclasses.replace(CONFIG, num_heads=3, d_k=d_k, logit_scale="inverse", attention=path)
        params = Transformer(config).init(jax.random.key(0), tokens(0))["params"]
        _, seen = Transformer(config).apply({"params": params}, tokens(1), segments, want_queries=True)
        found[path] = np.full((3, 3, 12, 12), np.nan)
        budget = 3 * 12 * 12 * 8
        for documents, heads, weights in weights_in_blocks(config, seen, 1, segments, (2, 0), budget):
            assert weights.shape == (1, 1, 12, 12)
            found[path][documents, heads] = weights
        assert np.isnan(found[path][:, 1]).all()
        scale = params["block_1"]["norm_attention"]["scale"]
        x = seen["residual"][1]
        normed = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale[None, None]
        value = jnp.einsum("BSD,DHK->BSHK", normed, params["block_1"]["attention"]["w_v"])
        out = jnp.einsum("BHTS,BSHK->BTHK", found[path][:, [0, 2]], value[:, :, jnp.array([0, 2])])
        np.testing.assert_allclose(out, seen["heads"][1][:, :, jnp.array([0, 2])], atol=1e-12)
    np.testing.assert_allclose(found[fast], found["reference"], atol=1e-12)
    assert (found[fast][2, 0, 9:] == 0).all() and (found[fast][0, 0, 5:, :5] == 0).all()


def test_logits_are_at_least_float32():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    found, _ = Transformer(config).init_with_output(jax.random.key(0), tokens(9))[0]
    assert found.dtype == jnp.float32


def test_bad_input_is_a_sentence(params):
    with pytest.raises(ValueError, match="T=13 exceeds the 12 learned positions; cut the input"):
        logits(params, tokens(0, 1, 13))
    with pytest.raises(ValueError, match=r"gates have shape \(4, 2\); this model takes \(layers, heads\) = \(2, 4\)"):
        logits(params, tokens(0), None, jnp.ones((4, 2)))
