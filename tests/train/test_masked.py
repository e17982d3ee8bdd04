"""The masked objective: what is hidden, that both sides count, and that every token is told exactly once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from configs import default, smoke
from main import main
from mha.transformer import ModelConfig
from train import grid
from train.config import InputError, freeze
from train.data import corpora
from train.losses import documents, masked
from train.run import step

BOS = 256
MODEL = ModelConfig(258, 16, 16, 2, 8, (32,), causal=False, attention="reference")
TRAIN = dataclasses.replace(
    freeze(default.get_config().to_dict()).train, objective="masked", steps=300, warmup_steps=10, schedule="constant"
)


def tokens_of(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 257, shape), jnp.int32)


def test_training_hides_the_share_that_is_asked_and_never_bos():
    tokens = tokens_of(64, 100)
    starts = jnp.arange(64, dtype=jnp.int32) * 100
    hidden = masked.hidden_in_training(tokens, starts, jnp.int32(5), 0.15, BOS)
    assert not (hidden & (tokens == BOS)).any()
    assert abs(float(hidden.mean()) - 0.15) < 4 * (0.15 * 0.85 / 6400) ** 0.5
    # A window hides the same tokens whatever batch it is in, and others at another step.
    again = masked.hidden_in_training(tokens[3:5], starts[3:5], jnp.int32(5), 0.15, BOS)
    assert (again == hidden[3:5]).all()
    assert not (masked.hidden_in_training(tokens, starts, jnp.int32(6), 0.15, BOS) == hidden).all()


def test_a_hidden_token_is_told_from_both_sides_and_not_from_itself():
    params = step.init(MODEL, TRAIN, jnp.zeros(1, jnp.uint32)).params
    params = jax.tree.map(lambda leaf: leaf[0], params)
    tokens, hidden = tokens_of(1, 16) % BOS, jnp.zeros((1, 16), bool).at[0, 7].set(True)
    segments = jnp.ones((1, 16), jnp.int32)

    def told(changed):
        """The loss of a fixed word at place 7 while the token at `changed` is another."""
        other = tokens.at[0, changed].set((tokens[0, changed] + 1) % BOS)
        seen = jnp.where(hidden, MODEL.vocab_size - 1, other)
        whole = masked.losses(MODEL, params, seen.at[0, 7].set(9), segments, hidden)
        return float(whole[0, 7])

    own = told(7)
    assert all(abs(told(place) - own) > 1e-6 for place in (0, 6, 8, 15)), "past and future tokens matter"
    causal = dataclasses.replace(MODEL, causal=True)
    late = tokens.at[0, 12].set(3)
    ours, theirs = (masked.losses(causal, params, each, segments, hidden)[0, 7] for each in (tokens, late))
    assert ours == theirs, "which a causal model would not notice"


@pytest.mark.slow
def test_it_learns_what_only_the_future_tells():
    """Of a text in which every byte stands twice in a row the first of a pair is told from the second."""
    pairs = np.repeat(np.random.default_rng(0).integers(0, 16, 4000), 2)
    starts = jnp.asarray(np.random.default_rng(1).integers(0, 3900, (1, 300, 16)) * 2, jnp.int32)
    state = step.init(MODEL, TRAIN, jnp.zeros(1, jnp.uint32))
    run = jax.jit(lambda state: step.run(MODEL, TRAIN, "scan", BOS, state, jnp.asarray(pairs, jnp.uint16), starts,
                                         jnp.array([0.01]), 0, 300))  # fmt: skip
    _, metrics = run(state)
    assert metrics["loss"][0, 0] > 5 and float(metrics["loss"][0, -20:].mean()) < 0.4 * np.log(16)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    (folder / "text.txt").write_text(" ".join(np.random.default_rng(0).choice("of and to in is it on".split(), 8000)))
    config = smoke.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.tuning_seeds = (16,), (4,), ()
    config.grid.init_seeds = (0,)
    config.model.num_layers, config.data.seq_len, config.data.source = 1, 16, f"file:{folder}/text.txt"
    config.train.objective, config.eval.batch_size = "masked", 4
    config = freeze(config.to_dict())
    return config, corpora.write_corpus(config.data, folder / "data")


def test_the_model_has_a_word_more_and_the_same_budget(study):
    config, corpus = study
    (cell,) = grid.cells_of(config, corpus.vocab_size)
    causal = dataclasses.replace(config, train=dataclasses.replace(config.train, objective="causal"))
    (other,) = grid.cells_of(causal, corpus.vocab_size)
    assert cell.model == dataclasses.replace(other.model, vocab_size=258, causal=False)


@pytest.mark.parametrize("stride", [0, 5, 16])
def test_evaluation_tells_every_token_once(stride, study):
    """A model that knows nothing loses ln V on each: the sums count them."""
    config, corpus = study
    (cell,) = grid.cells_of(config, corpus.vocab_size)
    model, windows = (
        dataclasses.replace(cell.model, attention="reference"),
        dataclasses.replace(config.eval, stride=stride),
    )
    params = jax.tree.map(jnp.zeros_like, step.init(model, config.train, jnp.zeros(1, jnp.uint32)).params)
    first, last = corpus.splits["test"]
    sums = documents.document_losses(model, "scan", params, corpus, "test", windows)
    np.testing.assert_allclose(sums[0], corpus.num_tokens[first:last] * np.log(258), rtol=1e-5)


def test_the_rounds_are_of_equal_size():
    rounds = np.asarray(masked.round_of(jnp.arange(50), 15))
    counts = np.array([np.bincount(row, minlength=masked.ROUNDS) for row in rounds])
    assert counts.min() == 2 and counts.max() == 3
    assert len({tuple(row) for row in rounds.tolist()}) == 50


@pytest.mark.slow
def test_a_masked_study(study, tmp_path):
    """Trained, restored with the same loss, evaluated and reported."""
    config, _ = study
    arguments = ["--config=configs/smoke.py", f"--config.data.source={config.data.source}", f"--workdir={tmp_path}/run"]
    more = ["train.objective=masked", "grid.num_heads=4", "claims.launches=0", "data.seq_len=32"]
    assert main([*arguments, *(f"--config.{each}" for each in more)]) == 0
    table = pd.read_csv(tmp_path / "run" / "results" / "cells.csv")
    assert len(table) == 1 and 0 < table.test_loss[0] < 6 and (tmp_path / "run" / "report" / "index.html").exists()


def test_bad_fractions():
    for name, value, said in (
        ("mask_fraction", 0.6, "hides more than it shows"),
        ("objective", "both", "causal, masked"),
    ):
        config = default.get_config().to_dict()
        config["train"][name] = value
        with pytest.raises(InputError, match=said):
            freeze(config)
