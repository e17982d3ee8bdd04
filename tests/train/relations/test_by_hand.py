"""Weights by hand: one head that holds every relation, far below what equal weights leave."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import relations
from eval.report.dose_figures import even_weights
from mha.transformer import ModelConfig, Transformer, weights_in_blocks
from train.config import freeze
from train.data.relations import by_hand, dose, language
from train.data.relations.dose import Dose
from train.data.relations.kinds import Kinds
from train.losses import answers
from train.run import step

MODEL = ModelConfig(162, 64, 64, 1, 64, (256,), attention="reference")


def of(r, row=0, **dials) -> Dose:
    return Dose(dose.active(row, 6, r), **dials)


def by_hand_of(model, spoken) -> dict:
    model = dataclasses.replace(model, vocab_size=len(spoken.vocabulary))
    train = freeze(relations.get_config().to_dict()).train
    drawn = step.init(model, train, jnp.asarray([0], jnp.uint32)).params
    own = jax.tree.map(lambda leaf: np.asarray(leaf[0]), drawn)
    return model, by_hand.weights(model, spoken, own)


@pytest.mark.parametrize(
    "spoken",
    [
        of(1, 2),
        of(2),
        of(4, 5, tagged=True, distractors=0.5, noise=0.1),
        of(6, 3, noise=0.1),
        of(3, 1, demand="switch"),
        of(6, demand="switch", noise=0.1),
    ],
    ids=["one", "two", "four tagged", "six", "switch three", "switch six"],
)
def test_one_head_holds_them_all(spoken):
    """The relational loss lies at its floor, on documents with and without noise; equal weights leave far more."""
    model, params = by_hand_of(MODEL, spoken)
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)
    text = language.documents(spoken, 5, 0, 64)
    together, apart = answers.excess_of(model, rows, spoken.vocabulary.answer_bits, [text])
    if not spoken.noise:
        assert 0 <= together[0] < 1e-3 and (apart[0] < 1e-3).all()
        assert len(spoken.on) == 1 or together[0] < even_weights(len(spoken.on)) / len(spoken.on) / 100
        return
    # It gives the truth and knows of no noise: right where the answer is the truth.
    quiet = language.documents(dataclasses.replace(spoken, noise=0.0), 5, 0, 64)
    assert answers.excess_of(model, rows, spoken.vocabulary.answer_bits, [quiet])[0][0] < 1e-3


def test_the_head_weighs_its_sources_by_halves():
    """1/2, 1/4, ... of what the last has twice, at the sources' offsets alone, wherever the query stands."""
    spoken = of(6, 2)
    model, params = by_hand_of(MODEL, spoken)
    text = language.documents(spoken, 0, 0, 8)
    tokens = jnp.asarray(text.tokens[:, :-1].astype(np.int32))
    _, seen = Transformer(model).apply({"params": params}, tokens, want_queries=True)
    (_, _, weights), = weights_in_blocks(model, seen, layer=0)  # fmt: skip
    weights = np.asarray(weights)[:, 0]
    wanted = 0.5 ** np.arange(6) / (2 - 0.5**5)
    links = text.links
    found = weights[links.document, links.query, links.key].reshape(-1, 6)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=0.005)
    assert links.query.min() < 20 and links.query.max() > 50


def test_other_words_are_predicted_about_as_often_as_they_come():
    spoken = of(6)
    model, params = by_hand_of(MODEL, spoken)
    tokens = jnp.asarray(language.documents(spoken, 0, 0, 64).tokens.astype(np.int32))
    losses = step.token_losses(model, params, tokens, jnp.ones(tokens[:, :-1].shape, jnp.int32))
    answers_next = np.asarray(spoken.vocabulary.kinds)[np.asarray(tokens[:, 1:])] == "answer"
    assert float(losses[~answers_next].mean()) < np.log(162) - 1


def test_deeper_models_begin_with_the_same_answers():
    spoken = of(6)
    one, of_one = by_hand_of(MODEL, spoken)
    two, of_two = by_hand_of(dataclasses.replace(MODEL, d_ff=(256, 128)), spoken)
    tokens = jnp.asarray(language.documents(spoken, 0, 0, 4).tokens[:, :-1].astype(np.int32))
    first, second = (Transformer(m).apply({"params": p}, tokens)[0] for m, p in ((one, of_one), (two, of_two)))
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert np.abs(of_two["block_1"]["mlp_in"]["kernel"]).max() > 0, "the second block can learn"


@pytest.mark.parametrize(
    ("model", "spoken", "said"),
    [
        (dataclasses.replace(MODEL, num_heads=8, d_k=8), of(6), "needs one head and at least d_model=26"),
        (dataclasses.replace(MODEL, d_ff=(125,)), of(6), "d_ff=126; this model has num_heads=1, d_model=64"),
        (dataclasses.replace(MODEL, d_model=16, d_k=16), of(1), "this model has num_heads=1, d_model=16, d_k=16"),
        (MODEL, Kinds(("A",)), "is of family P alone"),
    ],
)
def test_what_cannot_start_so(model, spoken, said):
    assert said in by_hand.refusal(model, spoken)
    assert not by_hand.refusal(MODEL, of(6)) and not by_hand.refusal(MODEL, of(6, demand="switch"))
