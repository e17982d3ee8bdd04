"""What replicas read: windows of the corpus, or documents of their own seed's language that no look sees."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import relations, smoke
from train import grid
from train.config import InputError, freeze
from train.data import batches, corpora, sources
from train.data.relations import doses, language
from train.grid import Replica
from train.run import feed, packs, step
from train.run.feed import STEPS_PER_DISPATCH
from train.run.program import Program

PLACE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def frozen(**changes):
    config = relations.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.learning_rates = (16,), (2,), (0.003, 0.01)
    config.grid.init_seeds = (0, 1)
    config.train.steps, config.train.batch_size, config.train.warmup_steps = 60, 4, 5
    config.dose.look_every, config.dose.documents, config.dose.relations = 20, 8, (1, 2)
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return freeze(config.to_dict())


def documents_of(dispatch, length: int) -> np.ndarray:
    """(R, K, B, T) that a program cuts out of what it is given."""
    tokens, starts = dispatch
    return np.asarray(tokens)[starts[..., None] + np.arange(length)]


def test_training_reads_no_document_that_is_looked_at():
    config = frozen()
    read = doses.trained_on(config, 2, 3, 0, 100)
    assert read.shape == (400, 64) and len({bytes(one) for one in read}) == 400
    held = [doses.looked_at(config, 2, split, 3).tokens for split in ("tune", "test")]
    for each in held:
        assert len(each) == 8 and not {bytes(one) for one in each} & {bytes(one) for one in read}
    assert not np.array_equal(*held)


def test_training_reads_on_where_it_stopped():
    """However the steps are cut into dispatches, across the blocks that documents are drawn in."""
    config = frozen()
    whole = doses.trained_on(config, 2, 3, 0, 600)
    assert 600 * 4 > 2 * language.BLOCK
    cuts = [0, 1, 64, 65, 300, 600]
    parts = [doses.trained_on(config, 2, 3, first, last - first) for first, last in zip(cuts, cuts[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    spoken = doses.spoken(config.data, 2, 3)
    np.testing.assert_array_equal(whole, language.documents(spoken, 3, 16, 16 + 2_400).tokens)


def test_each_replica_reads_the_language_of_its_own_seed():
    config = frozen()
    source, replicas = feed.of(config, None, 2), [Replica(0.01, seed, seed) for seed in (3, 4)]
    given = documents_of(source.dispatch(replicas, 3, 7, 5, PLACE), 64)
    assert given.shape == (3, STEPS_PER_DISPATCH, 4, 64)
    for row, replica in enumerate(replicas):
        read = doses.trained_on(config, 2, replica.data_seed, 7, 5)
        np.testing.assert_array_equal(given[row, :5].reshape(20, 64), read)
    assert not np.array_equal(given[0, :5], given[1, :5])
    spoken = source.languages(replicas)
    assert [one.relations for one in spoken] == [doses.spoken(config.data, 2, seed).relations for seed in (3, 4)]
    tokens, _ = source.dispatch(replicas, 3, 7, 5, PLACE)
    assert tokens.shape == source.shape(3), "which the program was compiled for"


def test_each_replica_reads_windows_in_the_order_of_its_own_seed(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 977} lines\n" for i in range(4000)))
    values = smoke.get_config()
    values.data.source = f"file:{tmp_path}/text.txt"
    config = freeze(values.to_dict())
    corpus = corpora.write_corpus(config.data, tmp_path / "data")
    source, replicas = feed.of(config, corpus, 0), [Replica(0.01, 0, seed) for seed in (3, 4, 3)]
    tokens, starts = source.dispatch(replicas, 4, 7, 5, PLACE)
    assert tokens.shape == source.shape(4) and np.array_equal(tokens, corpus.tokens_of("train"))
    windows = corpus.num_windows("train", config.data.seq_len)
    for row, replica in enumerate(replicas):
        order = batches.Batches(windows, config.train.batch_size, config.data.seq_len, replica.data_seed)
        np.testing.assert_array_equal(starts[row, :5], order.starts(7, 5))
    assert np.array_equal(starts[0], starts[2]) and not np.array_equal(starts[0], starts[1])
    assert source.languages(replicas) == [None] * 3
    assert feed.fingerprint(config, corpus) == corpus.fingerprint


def test_halves_share_no_window(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 977} lines\n" for i in range(4000)))
    values = smoke.get_config()
    values.data.source, values.train.windows = f"file:{tmp_path}/text.txt", "halves"
    config = freeze(values.to_dict())
    corpus = corpora.write_corpus(config.data, tmp_path / "data")
    source, replicas = feed.of(config, corpus, 0), [Replica(0.01, 0, seed) for seed in (0, 1, 2)]
    half = corpus.num_windows("train", config.data.seq_len) // 2
    steps = -(-half // config.train.batch_size)
    read = [set() for _ in replicas]
    for first in range(0, steps, feed.STEPS_PER_DISPATCH):
        _, starts = source.dispatch(replicas, 3, first, min(feed.STEPS_PER_DISPATCH, steps - first), PLACE)
        for row, seen in enumerate(read):
            seen |= set(starts[row, : steps - first].ravel().tolist())
    places = [set((np.arange(half) + which * half) * config.data.seq_len) for which in (0, 1)]
    assert read == [places[0], places[1], places[0]]


def test_every_seed_has_its_own_row():
    config = frozen()
    names = [doses.spoken(config.data, 2, seed).relations for seed in range(6)]
    assert len(set(names)) == 6 and sorted(name for each in names for name in each) == sorted(
        2 * "P1 P2 P3 P5 P7 P11".split()
    )


def test_a_dose_of_kinds():
    """data.relations names the kinds; a seed's row of a square says which of them are on."""
    config = frozen(data__relations="A,B,C,D,E,F,G")
    alone = [doses.spoken(config.data, 1, seed).relations for seed in range(7)]
    assert sorted(alone) == [(kind,) for kind in "ABCDEFG"] and alone == [
        doses.spoken(config.data, 1, seed + 7).relations for seed in range(7)
    ]
    three = [doses.spoken(config.data, 3, seed).relations for seed in range(7)]
    assert all(len(set(each)) == 3 for each in three) and sorted(sum(three, ())) == sorted(3 * "ABCDEFG")
    for which, dose in (("A,C", 3), ("6,A,C", 1)):
        with pytest.raises(InputError, match=f"dose.relations asks for {dose} of data.relations='{which}'"):
            doses.spoken(frozen(data__relations=which).data, dose, 0)


def test_the_fingerprint_is_of_all_that_is_spoken():
    config = frozen()
    found = feed.fingerprint(config, None)
    assert found == feed.fingerprint(frozen(train__steps=40), None)
    others = [frozen(dose__relations=(1, 3)), frozen(data__noise=0.1), frozen(grid__init_seeds=(0, 2))]
    others.append(frozen(grid__tuning_seeds=(100,)))
    assert len({found, *(feed.fingerprint(other, None) for other in others)}) == 5


def test_answer_bits_cover_the_models_words():
    config = frozen()
    own = doses.spoken(config.data, 2, 3).vocabulary.answer_bits
    bits = doses.answer_bits(config.data, 2, 3, len(own) + 5)
    np.testing.assert_array_equal(bits[:-5], own)
    assert bits.dtype == own.dtype and (bits[-5:] == -1).all()


def test_doses_of_one_model_share_one_program():
    """Compiled once, and each trains on its own language."""
    config = frozen()
    cells = grid.cells_of(config, sources.vocab_size(config.data))
    assert [cell.name for cell in cells] == ["d016_h002_r1", "d016_h002_r2"] and cells[0].model == cells[1].model
    model, _ = packs.resolve(cells[0], config)
    replicas = (Replica(0.01, 3, 3), Replica(0.003, 4, 4))
    first, second = (
        packs.Pack(0, model, replicas[:count], "scan", packs.environment(config), dose=dose)
        for dose, count in ((1, 2), (2, 1))
    )
    one = Program(first, config, feed.of(config, None, 1))
    two = Program(second, config, feed.of(config, None, 2), [one])
    assert two._compiled is one._compiled and two._rows == one._rows == 4
    state = jax.device_get(two.init())
    alone = jax.device_get(step.init(model, config.train, jnp.array([3], jnp.uint32)))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(two.replicas_of(two.init())), alone)
    losses = [np.asarray(program.run(jax.device_put(state), 0, 3)[1]["loss"])[0, :3] for program in (one, two)]
    assert np.isfinite(losses).all() and not np.allclose(*losses)
    for other in ({"model": dataclasses.replace(model, d_ff=(7,))}, {"replica_map": "vmap"}, {"dose": 0}):
        pack = dataclasses.replace(second, **other)
        assert not Program._serves(types.SimpleNamespace(pack=pack, _rows=4), one)
