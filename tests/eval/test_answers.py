"""Relational loss above the floor of runs that each have a text of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from mha.transformer import ModelConfig, Transformer
from tests.data import data_config
from train.config import freeze
from train.data.relations import language, parse
from train.losses import answers
from train.run import step


@pytest.fixture(scope="module")
def runs():
    """Three texts of two relations each, other ones in each, and the weights of five rows."""
    texts, spoken = [], []
    for seed in (0, 1, 4):
        spoken.append(parse.language(data_config(source="relations", relations="2", language_seed=seed, noise=0.1)))
        texts.append(language.documents(spoken[-1], seed, 0, 6))
    model = ModelConfig(162, 64, 16, 2, 8, (16,), attention="reference")
    train = dataclasses.replace(freeze(default.get_config().to_dict()).train)
    params = step.init(model, train, jnp.arange(5, dtype=jnp.uint32)).params
    return model, jax.tree.map(lambda leaf: 3 * leaf, params), spoken, texts


def test_each_run_is_told_its_own_text(runs):
    model, params, spoken, texts = runs
    bits = spoken[0].vocabulary.answer_bits
    together, apart = answers.excess_of(model, params, bits, texts)
    for row, text in enumerate(texts):
        own = jax.tree.map(lambda leaf, row=row: leaf[row], params)
        logits, _ = Transformer(model).apply({"params": own}, jnp.asarray(text.tokens[:, :-1].astype(np.int32)))
        p = np.asarray(jax.nn.softmax(logits), np.float64)
        of_relation, of_answer = {0: [], 1: []}, {}
        for document, query, relation, bit, log_p in zip(*text.questions, strict=True):
            right = bits[:, bit] == bits[text.tokens[document, query + 1], bit]
            of_relation[relation].append(-np.log(p[document, query, right].sum()) + log_p)
            both, floor = of_answer.get((document, query), (np.ones(162, bool), 0.0))
            of_answer[document, query] = both & right, floor + log_p
        whole = [-np.log(p[at][right].sum()) + floor for at, (right, floor) in of_answer.items()]
        np.testing.assert_allclose(together[row], np.sum(whole) / (2 * len(whole)), rtol=1e-5)
        np.testing.assert_allclose(apart[row], [np.mean(of_relation[0]), np.mean(of_relation[1])], rtol=1e-5)


def test_a_run_alone_is_told_the_same(runs):
    """Whatever is looked at beside it, and in whatever row."""
    model, params, spoken, texts = runs
    bits = spoken[0].vocabulary.answer_bits
    together, apart = answers.excess_of(model, params, bits, texts)
    moved = jax.tree.map(lambda leaf: leaf[np.array([2, 0, 1, 3, 4])], params)
    alone, own = answers.excess_of(model, moved, bits, texts[2:])
    assert alone.tolist() == [together[2]] and own[0].tolist() == apart[2].tolist()
