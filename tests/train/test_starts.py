"""Other starts than drawn weights: by hand, and with attention that training leaves off."""

import dataclasses

import jax
import numpy as np
import pytest
from train.study.until import Program, Runs

from configs import relations
from mha.transformer import Transformer
from train import grid
from train.config import InputError, freeze
from train.data import sources
from train.data.relations import by_hand
from train.grid import Replica
from train.hosts.preemption import Notice, Preempted
from train.losses import answers
from train.run import metrics, packs, starts
from train.study import until


def frozen(**changes):
    config = relations.get_config()
    config.grid.num_heads, config.model.num_layers = (1,), 2
    config.train.steps, config.train.batch_size, config.train.warmup_steps = 40, 2, 5
    config.dose.look_every, config.dose.documents, config.dose.relations = 20, 8, (6,)
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return freeze(config.to_dict())


@pytest.fixture(scope="module")
def program():
    config = frozen()
    (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
    model, _ = packs.resolve(cell, config)
    return Program(model, config, rows=2)


REPLICAS = (Replica(0.003, 3, 3), Replica(0.003, 4, 4))


def languages():
    return [until.spoken(frozen().data, 6, replica.data_seed) for replica in REPLICAS]


class Silent:
    def __init__(self, stop=None):
        self.stop = stop

    def say(self, text):
        raise AssertionError(text)

    def steps(self, step, losses):
        if self.stop and step == 20:
            self.stop._asked.set()


def bits_of(spoken):
    return spoken.vocabulary.answer_bits


def leaves(params, name):
    found = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found if name in jax.tree_util.keystr(path)}


@pytest.mark.parametrize(("start", "off"), [(starts.NO_ATTENTION, (0, 1)), (starts.MLP_FIRST, (0,))])
def test_attention_that_is_off_stays_off(program, start, off):
    """Exactly, and in these layers alone, while all else learns."""
    config, spoken = frozen(), languages()
    state = program.init([3, 4], start, spoken)
    before = jax.device_get(state.params)
    texts = [until._documents(one, 3, 16, 20) for one in spoken]
    state, _ = program.run(state, texts, [0.01, 0.01], 10, 10)
    for layer in range(config.model.num_layers):
        for weight in ("w_v", "w_o"):
            (value,) = leaves(state.params, f"'block_{layer}']['attention']['{weight}'").values()
            assert (np.abs(value[:2]).max() == 0) == (layer in off)
    moved = leaves(state.params, "mlp_in")
    assert all((np.abs(moved[name][:2] - old[:2]) > 0).any() for name, old in leaves(before, "mlp_in").items())
    if start == starts.NO_ATTENTION:
        row = jax.tree.map(lambda leaf: leaf[0], state.params)
        tokens = texts[0][:2, :-1].astype(np.int32)
        other = tokens.copy()
        other[:, :30] = np.roll(tokens[:, :30], 1, axis=0)
        one, two = (Transformer(program.model).apply({"params": row}, each)[0] for each in (tokens, other))
        np.testing.assert_array_equal(one[:, 30:], two[:, 30:])


def test_every_row_starts_by_hand_from_its_own_language(program):
    spoken = [until.spoken(frozen().data, 2, replica.data_seed) for replica in REPLICAS]
    state = program.init([3, 4], starts.HAND_BUILT, spoken)
    texts = [until.looked_at(frozen(), 2, "test", replica.data_seed) for replica in REPLICAS]
    bits = bits_of(spoken[0])
    together, _ = answers.excess_of(program.model, state.params, bits, texts)
    assert together.shape == (2,) and (together < 1e-3).all()
    crossed, _ = answers.excess_of(program.model, state.params, bits, texts[::-1])
    assert spoken[0].on != spoken[1].on and (crossed > 0.05).all()


@pytest.fixture(scope="module")
def one_layer_program():
    config = frozen(train__batch_size=32, train__warmup_steps=50, train__steps=160)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=1))
    (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
    return Program(packs.resolve(cell, config)[0], config, rows=2)


@pytest.mark.parametrize("eased", [True, False])
def test_training_keeps_weights_by_hand(one_layer_program, eased, monkeypatch):
    """At the rate that such runs have; the same function of weights that are not eased is lost."""
    if not eased:
        monkeypatch.setattr(by_hand, "_eased", lambda ours: ours)
    program, config, spoken = one_layer_program, frozen(), languages()
    rate = starts.learning_rate(starts.HAND_BUILT, 0.003, (0.001, 0.003, 0.01))
    texts = [until.looked_at(config, 6, "test", replica.data_seed) for replica in REPLICAS]
    state, worst = program.init([3, 4], starts.HAND_BUILT, spoken), np.zeros(2)
    for now in range(0, 160, until.CHUNK):
        drawn = [until._documents(one, 3, now * 32, until.CHUNK * 32) for one in spoken]
        state, _ = program.run(state, drawn, [rate] * 2, now, until.CHUNK)
        worst = np.maximum(worst, answers.excess_of(program.model, state.params, bits_of(spoken[0]), texts)[0])
    assert (worst < 0.05).all() == eased, worst


def test_runs_by_hand_train_to_the_cap_whatever_the_looks_say(program, tmp_path):
    """And a stop in between changes nothing."""
    gently = tuple(dataclasses.replace(replica, learning_rate=1e-7) for replica in REPLICAS)
    runs = Runs(program.model, 6, "test", gently, start=starts.HAND_BUILT)
    found = until.train(program, runs, tmp_path / "a", frozen(), answers.excess_of, Notice(), Silent())
    assert [(run.steps, run.why) for run in found] == [(40, "capped")] * 2
    looks = metrics.read(tmp_path / "a" / "looks.jsonl")
    assert len(looks) == 4 and all(line["loss"] < 0.05 for line in looks), "drawn weights would be at .69"
    stop = Notice()
    with pytest.raises(Preempted):
        until.train(program, runs, tmp_path / "b", frozen(), answers.excess_of, stop, Silent(stop))
    until.train(program, runs, tmp_path / "b", frozen(), answers.excess_of, Notice(), Silent())
    assert (tmp_path / "b" / "looks.jsonl").read_text() == (tmp_path / "a" / "looks.jsonl").read_text()


def test_runs_without_attention_have_a_cap_of_their_own(program):
    long = frozen(train__steps=20_000)
    runs = Runs(program.model, 6, "test", REPLICAS)
    assert runs.cap(long) == 20_000 and dataclasses.replace(runs, start=starts.HAND_BUILT).cap(long) == 20_000
    off = dataclasses.replace(runs, start=starts.NO_ATTENTION)
    assert off.cap(long) == 1_000 and off.cap(frozen()) == 40


def test_starts_that_cannot_be(program):
    one_layer = dataclasses.replace(program.model, d_ff=(256,))
    with pytest.raises(InputError, match="dose.starts=mlp_first cannot be: .*this model has 1 layer; set --config.mod"):
        starts.check(starts.MLP_FIRST, one_layer, languages()[0])
    with pytest.raises(InputError, match="hand_built cannot be: a start by hand at dose 6 needs one head"):
        starts.check(starts.HAND_BUILT, dataclasses.replace(one_layer, d_ff=(32,)), languages()[0])
    for start in starts.KNOWN:
        starts.check(start, program.model, languages()[0])
    with pytest.raises(InputError, match="dose.starts=.* is not one of hand_built, no_attention, mlp_first"):
        frozen(dose__starts=("by_hand",))
    with pytest.raises(InputError, match="names a start twice"):
        frozen(dose__starts=("mlp_first", "mlp_first"))
