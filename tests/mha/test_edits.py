"""Gates and fills against a forward pass in NumPy that computes every head by hand, in float64; and refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.edits import Addition, Edits
from mha.transformer import Transformer
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
    gated = lambda layer, head, z: gates[layer, :, head][:, None, None] * z  # noqa: E731
    close(together, by_hand(config, params, tokens(2), closes=gated)[0])
    other = forward(config, params, tokens(2), Edits(gates[:, 0]))[0]
    assert moved(other[1], together[1])


def test_a_fill_of_zeros_is_zero_ablation():
    config, params = of()
    gates = np.random.default_rng(1).integers(0, 2, (L, 4)).astype(float)
    zeros = np.zeros((L, B, T, 4, 2))
    removed = forward(config, params, tokens(3), Edits(gates))
    close(forward(config, params, tokens(3), Edits(gates, zeros)), removed, 0)
    assert moved(forward(config, params, tokens(3), Edits(gates, zeros + 1))[0], removed[0])


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
    """A vector a head, as of mean ablation, one for all heads and one a document are the full array of them."""
    config, params = of()
    gates = np.random.default_rng(2).uniform(size=(L, B, 4))
    fills = [normal(1, (4, 2)), normal(2, 2), normal(3, (B, 1, 1, 2))]
    whole = np.stack([np.broadcast_to(fill, (B, T, 4, 2)) for fill in fills])
    got, wanted = (forward(config, params, tokens(7), Edits(gates, fill)) for fill in (fills, whole))
    close(got, wanted, 0)
    assert moved(got[0], forward(config, params, tokens(7), Edits(gates))[0])
    means = normal(4, (L, 4, 2))
    got, wanted = (forward(config, params, tokens(7), Edits(gates, fill)) for fill in (means, list(means)))
    close(got, wanted, 0)


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
