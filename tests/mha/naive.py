"""The Transformer in NumPy, one head after another, with a hand on what each head reads and gives; small models.

Dimension key: B batch, T position, D d_model, H head, K head width (d_k).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

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


def by_hand(config, params, tokens, reads=None, closes=None):
    """Logits and heads' outputs (B, T, K) by (layer, head), one head after another.

    `reads(layer, head, part, x, wrote)` is the stream that a head computes its query, key or value from, given the
    residual x and what each earlier head wrote to it; `closes(layer, head, z)` is what the head gives for its output z.
    """
    params = jax.tree.map(np.asarray, params)
    reads = reads or (lambda layer, head, part, x, wrote: x)
    closes = closes or (lambda layer, head, z: z)
    place = np.array([[np.sum(row[:t] == row[t]) for t in range(T)] for row in SEGMENTS])  # no segment comes twice
    same = SEGMENTS[:, :, None] == SEGMENTS[:, None]
    see = same & (SEGMENTS != 0)[:, :, None] & np.tril(np.ones((T, T), bool))
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
