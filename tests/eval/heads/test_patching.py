"""Path patching against a model run twice by hand, and what it says of circuits that are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.heads.composition import patching
from eval.heads.composition.patching import Condition, Windows
from mha.transformer import ModelConfig
from tests.eval.heads.restored import drawn

CONFIG = ModelConfig(13, 9, 8, 4, 2, (16, 16, 16), attention="reference", dtype="float64")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def windows(config, count=7, seed=0):
    random = np.random.default_rng(seed)
    tokens = random.integers(0, config.vocab_size, (count, config.seq_len + 1))
    length = random.integers(3, config.seq_len + 1, count)
    document = np.arange(count) // 2
    return Windows(tokens, length, document, patching.partners(length, document))


def rms(x, scale):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def attend(config, block, head, q_in, k_in, v_in):
    """What one head writes, of one document, given what it reads for each of its three."""
    w, gain = block["attention"], block["norm_attention"]["scale"]
    q, k, v = (rms(x, gain) @ w[name][:, head] for name, x in (("w_q", q_in), ("w_k", k_in), ("w_v", v_in)))
    logits = np.where(np.tril(np.ones((len(q), len(q)))) > 0, q @ k.T / np.sqrt(config.d_k), -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v @ w["w_o"][head]


def mlp(block, x):
    hidden = rms(x, block["norm_mlp"]["scale"]) @ block["mlp_in"]["kernel"]
    return hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))) / 2 @ block["mlp_out"]["kernel"]


def naive(config, params, tokens, wrote=None, condition=None, layer=None, partner=None):
    """Losses of one document and what its heads wrote, by (layer, head). With a condition: of a second run in which the
    layer's targets read what they would if the sources wrote what `partner` says."""
    params = jax.tree.map(np.asarray, params)
    inputs, new = tokens[:-1], {}
    x = params["embed"]["embedding"][inputs] + params["positions"]["embedding"][: len(inputs)]
    swapped = x.copy()
    for here in range(config.num_layers):
        block = params[f"block_{here}"]
        for head in range(config.num_heads):
            read = [x, x, x]
            if here == layer and condition.target in (None, head):
                read = [swapped if name in condition.kind else x for name in "qkv"]
            new[here, head] = attend(config, block, head, *read)
        if condition and here < layer:
            now = {head: wrote[here, head].copy() for head in range(config.num_heads)}
            for head in [head for below, head in condition.sources if below == here]:
                both = min(len(inputs), len(partner[here, head]))
                now[head][:both] = partner[here, head][:both]
            if condition.direct:
                swapped = swapped + sum(now.values()) + mlp(block, x + sum(wrote[here, h] for h in now))
            else:
                swapped = swapped + sum(now.values())
                swapped = swapped + mlp(block, swapped)
        x = x + sum(new[here, head] for head in range(config.num_heads))
        x = x + mlp(block, x)
    logits = rms(x, params["norm_final"]["scale"]) @ params["unembed"]["kernel"]
    logits = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(inputs)), tokens[1:]], new


CONDITIONS = [
    Condition(((0, 1),), "k"),
    Condition(((0, 0), (1, 3)), "q"),
    Condition(((1, 2),), "v"),
    Condition(((0, 1), (1, 0)), "qkv"),
    Condition(((0, 1),), "k", direct=True),
    Condition(((0, 1), (1, 2)), "v", direct=True),
    Condition(((0, 1),), "k", target=2),
    Condition(((1, 3),), "v", target=0, direct=True),
    Condition((), "qkv"),
]


@pytest.mark.parametrize("layer", [1, 2])
def test_it_is_what_two_runs_and_a_swap_by_hand_give(layer):
    params, seen = drawn(CONFIG, scale=2.0), windows(CONFIG)
    conditions = [c._replace(sources=tuple(s for s in c.sources if s[0] < layer)) for c in CONDITIONS]
    found = patching.rises(CONFIG, params, seen, layer, conditions, batch_size=3)
    texts = [row[: length + 1] for row, length in zip(seen.tokens, seen.length, strict=True)]
    clean = [naive(CONFIG, params, text) for text in texts]
    for condition, rise_B in zip(conditions, found, strict=True):
        for place, (text, partner) in enumerate(zip(texts, seen.partner, strict=True)):
            given = dict(wrote=clean[place][1], condition=condition, layer=layer, partner=clean[partner][1])
            wanted = naive(CONFIG, params, text, **given)[0] - clean[place][0]
            np.testing.assert_allclose(rise_B[place], wanted.sum(), rtol=1e-9, atol=1e-9)
        assert (np.abs(found).max(axis=1) > 1e-3).tolist() == [bool(c.sources) for c in conditions]


def test_single_precision_agrees_to_a_hundred_thousandth():
    params, seen = drawn(CONFIG), windows(CONFIG)
    single = dataclasses.replace(CONFIG, dtype="float32")
    rough = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    exact = patching.rises(CONFIG, params, seen, 1, CONDITIONS[:1])
    np.testing.assert_allclose(patching.rises(single, rough, seen, 1, CONDITIONS[:1]), exact, atol=1e-5)


def test_partners_are_others_documents_and_long_enough():
    length, document = np.repeat([9, 9, 9, 4, 4, 2], 4), np.arange(24) // 2
    partner = patching.partners(length, document)
    assert (document[partner] != document).all() and (length[partner] >= length).all()
    assert len(set(partner)) > 12
    assert patching.partners(np.array([5]), np.array([0])).tolist() == [0]


def test_sources_are_the_highest_and_their_rivals_alike():
    z = np.array([[1.0, 2], [5, 5], [np.nan, np.nan], [9, -9], [4, 4]])
    assert patching.top_sources(z, 2) == [1, 4] and patching.top_sources(z, 9) == [1, 4, 0, 3]
    norms = np.array([1.0, 1.1, 1.2, 0.9, 50, 60, 70, 80])
    sets = patching.random_sources([0, 4], norms, 40)
    assert all(len(one & {1, 2, 3}) == 1 and len(one & {5, 6, 7}) == 1 for one in map(set, sets))
    assert len({tuple(one) for one in sets}) > 4
    assert patching.random_sources([0], norms[:1], 3) == []


def test_what_a_head_writes():
    params, seen = drawn(CONFIG), windows(CONFIG)
    texts = [row[: length + 1] for row, length in zip(seen.tokens, seen.length, strict=True)]
    wrote = [naive(CONFIG, params, text)[1][1, 2] for text in texts]
    wanted = np.sqrt(np.concatenate([np.sum(each**2, axis=1) for each in wrote]).mean())
    np.testing.assert_allclose(patching.output_norms(CONFIG, params, seen, batch_size=3)[1, 2], wanted, rtol=1e-9)


def test_a_source_above_its_reader_is_refused():
    with pytest.raises(ValueError, match="no source of layer 1"):
        patching.rises(CONFIG, drawn(CONFIG), windows(CONFIG), 1, [Condition(((1, 0),), "k")])
