"""Fast path or plain: the same training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import attention
from mha.transformer import ModelConfig, Transformer


@pytest.mark.slow
def test_attention_of_512_heads_adds_at_most_500_megabytes():
    """Temporaries of a step at B = 32, d_k = 1, T = 512 over those without attention."""
    found = attention.memory()["temporaries"]
    assert 0 < found["ours"] - found["identity"] <= 500e6


@pytest.mark.parametrize("heads", [16, 8, 4])
def test_fifty_steps_of_loss_do_not_depend_on_the_path(heads):
    """Two layers, packed documents, AdamW: the loss curves stay within 1e-4."""
    rng = np.random.default_rng(0)
    tokens_BT1 = jnp.asarray(rng.integers(0, 16, (4, 33)))
    segments_BT = jnp.asarray(np.sort(rng.integers(0, 3, (4, 32)), axis=1))
    optimizer = optax.adamw(1e-2)

    def curve(path):
        model = Transformer(ModelConfig(16, 32, 16, heads, 16 // heads, (32, 32), attention=path))
        params = model.init(jax.random.key(0), tokens_BT1[:, :-1])["params"]

        def loss(params):
            logits_BTV, _ = model.apply({"params": params}, tokens_BT1[:, :-1], segments_BT)
            return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, tokens_BT1[:, 1:]).mean()

        def step(carry, _):
            value, grads = jax.value_and_grad(loss)(carry[0])
            updates, state = optimizer.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), value

        return jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, length=50)[1])(params)

    fast, plain = curve("auto"), curve("reference")
    assert plain[-1] < 0.8 * plain[0]
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-4)
