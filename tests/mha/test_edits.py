"""Edits against a forward pass in NumPy that computes every head by hand, in float64, and their refusals."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.attention import LOGIT_SCALES
from mha.edits import Addition, Edits
from mha.transformer import ModelConfig, Transformer

CONFIG = ModelConfig(
    vocab_size=17, seq_len=11, d_model=8, num_heads=4, d_k=2, d_ff=(16, 16, 16), attention="reference", dtype="float64"
)
B, T, L = 3, 11, CONFIG.num_layers
SEGMENTS = np.array([[1] * 4 + [2] * 7, [1] * 11, [1] * 8 + [0] * 3])
MODELS = {
    "one head": dict(num_heads=1, d_k=8, logit_scale="inverse"),
    "four heads": dict(),
    "learned scale": dict(logit_scale="learned"),
    "d_k=1": dict(num_heads=8, d_k=1, logit_scale="qk_norm"),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def of(**options):
    """A model, and parameters whose gains and factors are not what they begin with."""
    config = dataclasses.replace(CONFIG, **options)
    params = Transformer(config).init(jax.random.key(0), jnp.asarray(tokens(0)))["params"]
    return config, jax.tree.map(lambda w: w if w.ndim > 1 else 1 + 0.5 * jnp.cos(jnp.arange(w.size)), params)


def tokens(seed):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (B, T))


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def forward(config, params, tokens, edits=None, segments=SEGMENTS):
    """Logits and intermediates, op by op: most tests need another program, and share their ops."""
    return Transformer(config).apply({"params": params}, jnp.asarray(tokens), jnp.asarray(segments), edits)


def close(got, wanted, tolerance=1e-11):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, wanted)


def moved(got, plain, least=1e-4):
    return np.abs(np.asarray(got) - np.asarray(plain)).max() > least


def rms(x, scale):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def by_hand(config, params, tokens, reads=None, closes=None, segments=SEGMENTS):
    """Logits and heads' outputs (B, T, K) by (layer, head), one head after another.

    `reads(layer, head, part, x, wrote)` is the stream that a head computes its query, key or value from, given the
    residual x and what each earlier head wrote to it; `closes(layer, head, z)` is what the head gives for its output z.
    """
    params = jax.tree.map(np.asarray, params)
    reads = reads or (lambda layer, head, part, x, wrote: x)
    closes = closes or (lambda layer, head, z: z)
    place = np.array([[np.sum(row[:t] == row[t]) for t in range(T)] for row in segments])  # segments do not recur
    see = (segments[:, :, None] == segments[:, None]) & (segments[:, :, None] != 0) & np.tril(np.ones((T, T), bool))
    x, heads, wrote = params["embed"]["embedding"][tokens] + params["positions"]["embedding"][place], {}, {}
    for layer in range(config.num_layers):
        block, entered = params[f"block_{layer}"], x
        w, before = block["attention"], dict(wrote)
        for head in range(config.num_heads):
            part = {}
            for name in ("query", "key", "value"):
                read = rms(reads(layer, head, name, entered, before), block["norm_attention"]["scale"])
                features = np.einsum("BTD,DHK->BTHK", read, w[f"w_{name[0]}"])
                if config.logit_scale == "qk_norm" and name != "value":
                    flat = features.reshape(B, T, -1)
                    features = rms(flat, w[f"norm_{name[0]}"]["scale"]).reshape(features.shape)
                part[name] = features[:, :, head]
            logits = part["query"] @ part["key"].swapaxes(1, 2)
            logits = logits / (config.d_k if config.logit_scale == "inverse" else np.sqrt(config.d_k))
            logits = logits * w["logit_scale"][head] if config.logit_scale == "learned" else logits
            exps = np.where(see, np.exp(logits), 0)
            heads[layer, head] = exps / np.maximum(exps.sum(axis=-1, keepdims=True), 1e-300) @ part["value"]
            wrote[layer, head] = closes(layer, head, heads[layer, head]) @ w["w_o"][head]
            x = x + wrote[layer, head]
        hidden = rms(x, block["norm_mlp"]["scale"]) @ block["mlp_in"]["kernel"]
        gelu = hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))) / 2
        x = x + gelu @ block["mlp_out"]["kernel"]
    return rms(x, params["norm_final"]["scale"]) @ params["unembed"]["kernel"], heads


def equals_by_hand(config, params, seed, edits, **hooks):
    """Asserts that logits and heads' outputs are those by hand, and not those without edits; returns intermediates."""
    logits, seen = forward(config, params, tokens(seed), edits)
    wanted, heads = by_hand(config, params, tokens(seed), **hooks)
    close(logits, wanted)
    for (layer, head), z in heads.items():
        close(seen["heads"][layer][:, :, head], z)
    assert moved(logits, forward(config, params, tokens(seed))[0]) == (edits is not None)
    return seen


@pytest.mark.parametrize("model", MODELS)
def test_without_edits(model):
    config, params = of(**MODELS[model])
    equals_by_hand(config, params, 1, None)
    plain = forward(config, params, tokens(1))
    close(forward(config, params, tokens(1), Edits()), plain, 0)
    close(forward(config, params, tokens(1), Edits(gates=np.ones((L, config.num_heads)))), plain, 0)


@pytest.mark.parametrize("model", MODELS)
def test_gates_of_each_document_are_those_documents_alone(model):
    config, params = of(**MODELS[model])
    gates = np.random.default_rng(0).uniform(size=(L, B, config.num_heads)).round(1)
    together, seen = forward(config, params, tokens(2), Edits(gates))
    for row in range(B):
        alone = forward(config, params, tokens(2)[[row]], Edits(gates[:, row]), SEGMENTS[[row]])
        close([together[row], *(z[row] for z in seen["heads"])], [alone[0][0], *(z[0] for z in alone[1]["heads"])])
    close(
        together,
        by_hand(config, params, tokens(2), closes=lambda layer, head, z: gates[layer, :, head][:, None, None] * z)[0],
    )
    other = forward(config, params, tokens(2), Edits(gates[:, 0]))[0]
    assert moved(other[1], together[1])


def test_a_fill_of_zeros_is_zero_ablation():
    config, params = of()
    gates = np.random.default_rng(1).integers(0, 2, (L, 4)).astype(float)
    zeros = np.zeros((L, B, T, 4, 2))
    close(forward(config, params, tokens(3), Edits(gates, zeros)), forward(config, params, tokens(3), Edits(gates)), 0)
    assert moved(
        forward(config, params, tokens(3), Edits(gates, zeros + 1))[0],
        forward(config, params, tokens(3), Edits(gates))[0],
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_heads_own_output_as_fill_changes_nothing(model):
    config, params = of(**MODELS[model])
    plain, seen = forward(config, params, tokens(4))
    shut = Edits(np.zeros((L, config.num_heads)), seen["heads"])
    close(forward(config, params, tokens(4), shut)[0], plain, 1e-13)
    assert moved(forward(config, params, tokens(4), shut._replace(fill=None))[0], plain)


@pytest.mark.parametrize("model", MODELS)
def test_a_fill_of_another_documents_outputs(model):
    """Half open, so that both the head and the fill count; one layer is left as it is."""
    config, params = of(**MODELS[model])
    _, other = forward(config, params, tokens(6))
    _, theirs = by_hand(config, params, tokens(6))
    gates = np.ones((L, config.num_heads))
    gates[0, 0], gates[2, -1] = 0, 0.25
    edits = Edits(gates, [other["heads"][0], None, other["heads"][2]])

    def closes(layer, head, z):
        gate = gates[layer, head]
        return gate * z + (1 - gate) * theirs[layer, head]

    equals_by_hand(config, params, 5, edits, closes=closes)


def test_fills_broadcast():
    """A vector a head, as of mean ablation, one vector for all, and a number, are the full array of them."""
    config, params = of()
    gates = np.random.default_rng(2).uniform(size=(L, B, 4))
    fills = [normal(1, (4, 2)), normal(2, 2), normal(3, (B, 1, 1, 2))]
    whole = np.stack([np.broadcast_to(fill, (B, T, 4, 2)) for fill in fills])
    got, wanted = (forward(config, params, tokens(7), Edits(gates, fill)) for fill in (fills, whole))
    close(got, wanted, 0)
    assert moved(got[0], forward(config, params, tokens(7), Edits(gates))[0])
    means = normal(4, (L, 4, 2))
    close(
        forward(config, params, tokens(7), Edits(gates, means)),
        forward(config, params, tokens(7), Edits(gates, list(means))),
        0,
    )


@pytest.mark.parametrize("logit_scale", LOGIT_SCALES)
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


@pytest.mark.parametrize(
    "edits, said",
    [
        (Edits(np.ones((4, 3))), "gates have shape (4, 3); this model takes (layers, heads) = (3, 4), or (layers, "
                                 "batch, heads) = (3, 3, 4)"),
        (Edits(np.ones((3, 2, 4))), "gates have shape (3, 2, 4); this model takes (layers, heads) = (3, 4)"),
        (Edits(fill=np.ones((3, 2))), "there are no gates; give gates, 0 where the fill takes the output's place"),
        (Edits(np.ones((3, 4)), np.ones((2, 4, 2))), "fill has 2 entries; this model takes one for each of its 3"),
        (Edits(np.ones((3, 4)), 0.0), "fill has 0 entries; this model takes one for each of its 3"),
        (Edits(np.ones((3, 4)), np.ones((3, 2, 4))), "the fill of layer 0 has shape (2, 4); it must broadcast to "
                                                     "(batch, length, heads, d_k) = (3, 11, 4, 2)"),
        (Edits(np.ones((3, 4)), [None, None, np.ones((1, 3, 11, 4, 2))]), "the fill of layer 2 has shape (1, 3, 11"),
        (Edits(key={3: Addition(np.ones((3, 11, 8)))}), "an addition is to the key of layer 3; layers are 0 ... 2"),
        (Edits(query={1: Addition(np.ones((3, 8)))}), "the query of layer 1 has shape (3, 8); for 4 heads it must be "
                                                      "(batch, length, d_model) = (3, 11, 8), or (batch, length, "
                                                      "heads, d_model) = (3, 11, 4, 8)"),
        (Edits(value={0: Addition(np.ones((3, 11, 4, 8)), [1, 2])}), "the value of layer 0 has shape (3, 11, 4, 8); "
                                                                     "for 2 heads it must be"),
        (Edits(value={0: Addition(np.ones((3, 11, 8)), [1, 4])}), "the value of layer 0 chooses heads [1, 4]; choose "
                                                                  "among 0 ... 3, each once"),
        (Edits(value={0: Addition(np.ones((3, 11, 8)), [1, 1])}), "chooses heads [1, 1]; choose among 0 ... 3, each"),
        (Edits(value={0: Addition(np.ones((3, 11, 8)), 2)}), "the value of layer 0 have shape () and dtype int"),
    ],
)  # fmt: skip
def test_edits_of_another_shape_are_a_sentence(edits, said):
    config, params = of()
    with pytest.raises(ValueError, match=re.escape(said)):
        Transformer(config).apply({"params": params}, jnp.asarray(tokens(0)), None, edits)
