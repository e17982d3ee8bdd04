"""Other starts than drawn weights: by hand, and with attention that training leaves off."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import relations
from mha.transformer import Transformer
from train import grid
from train.config import InputError, freeze
from train.data import sources
from train.data.relations import by_hand, doses
from train.hosts.preemption import Notice, Preempted
from train.losses import answers
from train.run import feed, loop, metrics, packs, starts, stops
from train.run.program import Program
from train.workdir import CellFolder


def frozen(**changes):
    config = relations.get_config()
    config.grid.num_heads, config.model.num_layers = (1,), 2
    config.train.steps, config.train.batch_size, config.train.warmup_steps = 40, 2, 5
    config.dose.look_every, config.dose.documents, config.dose.relations = 20, 8, (6,)
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return freeze(config.to_dict())


def program_of(config, rate=0.01, start=grid.DRAWN, dose=6, before=()) -> Program:
    (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
    replicas = grid.replicas((rate,), ((3, 3), (4, 4)), start)
    pack = packs.Pack(0, packs.resolve(cell, config)[0], replicas, "scan", packs.environment(config), dose=dose)
    return Program(pack, config, feed.of(config, None, dose), before)


@pytest.fixture(scope="module")
def program():
    return program_of(frozen())


def languages(dose=6):
    return [doses.spoken(frozen().data, dose, seed) for seed in (3, 4)]


class Silent:
    def __init__(self, stop=None):
        self.stop, self.said = stop, []

    def say(self, text):
        self.said.append(text)

    def steps(self, step, losses):
        if self.stop and step == 20:
            self.stop._received()


def bits_of(spoken):
    return spoken.vocabulary.answer_bits


def leaves(params, name):
    found = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found if name in jax.tree_util.keystr(path)}


@pytest.mark.parametrize(("start", "off"), [(starts.NO_ATTENTION, (0, 1)), (starts.MLP_FIRST, (0,))])
def test_attention_that_is_off_stays_off(program, start, off):
    """Exactly, and in these layers alone, while all else learns."""
    config = frozen()
    program = program_of(config, start=start, before=[program])
    state = program.init()
    before = jax.device_get(state.params)
    text = doses.trained_on(config, 6, 3, 10, 1)
    state, _ = program.run(state, 10, 10)
    for layer in range(config.model.num_layers):
        for weight in ("w_v", "w_o"):
            (value,) = leaves(state.params, f"'block_{layer}']['attention']['{weight}'").values()
            assert (np.abs(value[:2]).max() == 0) == (layer in off)
    moved = leaves(state.params, "mlp_in")
    assert all((np.abs(moved[name][:2] - old[:2]) > 0).any() for name, old in leaves(before, "mlp_in").items())
    if start == starts.NO_ATTENTION:
        row = jax.tree.map(lambda leaf: leaf[0], state.params)
        tokens = text[:2, :-1].astype(np.int32)
        other = tokens.copy()
        other[:, :30] = np.roll(tokens[:, :30], 1, axis=0)
        one, two = (Transformer(program.pack.model).apply({"params": row}, each)[0] for each in (tokens, other))
        np.testing.assert_array_equal(one[:, 30:], two[:, 30:])


def test_every_row_starts_by_hand_from_its_own_language(program):
    by_hand_at_two = program_of(frozen(), start=starts.HAND_BUILT, dose=2, before=[program])
    spoken, params = languages(2), by_hand_at_two.replicas_of(by_hand_at_two.init()).params
    texts = [doses.looked_at(frozen(), 2, "test", seed) for seed in (3, 4)]
    model, bits = program.pack.model, bits_of(spoken[0])
    together, _ = answers.excess_of(model, params, bits, texts)
    assert together.shape == (2,) and (together < 1e-3).all()
    crossed, _ = answers.excess_of(model, params, bits, texts[::-1])
    assert spoken[0].on != spoken[1].on and (crossed > 0.05).all()


@pytest.fixture(scope="module")
def one_layer_program():
    config = frozen(train__batch_size=32, train__warmup_steps=50, train__steps=160, model__num_layers=1)
    rate = starts.learning_rate(starts.HAND_BUILT, 0.003, (0.001, 0.003, 0.01))
    return program_of(config, rate, starts.HAND_BUILT), config


@pytest.mark.parametrize("eased", [True, False])
def test_training_keeps_weights_by_hand(one_layer_program, eased, monkeypatch):
    """At the rate that such runs have; the same function of weights that are not eased is lost."""
    for factor in () if eased else ("RESIDUAL", "VALUE", "NORM_ATTENTION", "NORM_MLP"):
        monkeypatch.setattr(by_hand, factor, 1.0)
    program, config = one_layer_program
    state, worst = program.init(), np.zeros(2)
    for now in range(0, 160, 10):
        state, _ = program.run(state, now, 10)
        params = program.replicas_of(state).params
        found = answers.of_seeds(program.pack.model, params, config, 6, "test", (3, 4))
        worst = np.maximum(worst, [each["loss"] for each in found])
    assert (worst < 0.05).all() == eased, worst


def test_runs_by_hand_train_to_the_cap_whatever_the_looks_say(program, tmp_path, monkeypatch):
    """And a stop in between changes nothing."""
    monkeypatch.setattr(loop, "_next_dispatch", lambda *_: 5)
    gently = program_of(frozen(), 1e-7, starts.HAND_BUILT, before=[program])

    def train(name, stop):
        rule = stops.rule_for(gently.pack, frozen(), {})
        return loop.train(gently, CellFolder(tmp_path / name), frozen(), "", rule, stop, Silent(stop))

    with monkeypatch.context() as quiet:
        quiet.setattr(Silent, "steps", lambda *_: None)
        found = train("a", Notice())
    assert [(run.steps, run.why) for run in found.outcomes] == [(40, "capped")] * 2
    looks = metrics.read(tmp_path / "a" / "looks.jsonl")
    assert len(looks) == 4 and all(line["loss"] < 0.05 for line in looks), "drawn weights would be at .69"
    with pytest.raises(Preempted):
        train("b", Notice())
    assert train("b", Notice()).outcomes == found.outcomes
    assert (tmp_path / "b" / "looks.jsonl").read_text() == (tmp_path / "a" / "looks.jsonl").read_text()


@pytest.mark.parametrize("start", [grid.DRAWN, *starts.KNOWN])
def test_a_pack_has_one_start(start, tmp_path):
    """The runs of another start of the same cell form a pack of their own, in a folder that a resume reads back."""
    config = frozen(dose__starts=starts.KNOWN)
    (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
    seeds = grid.judged_seeds(config)
    runs = sum((grid.replicas((0.01,), seeds, each) for each in (grid.DRAWN, *starts.KNOWN)), ())
    folder = CellFolder(tmp_path)
    planned = packs.plan(dataclasses.replace(cell, replicas=runs), folder, config, 0, print)
    (mine,) = [pack for pack, _ in planned if pack.replicas[0].start == start]
    assert len(planned) == 4 and {replica.start for replica in mine.replicas} == {start} and mine.dose == 6
    assert len(mine.replicas) == len(seeds)
    names = [replica.name for replica in mine.replicas]
    assert names[0] == "lr0.01_i0_d0" + (f"_{start}" if start != grid.DRAWN else "")


def test_starts_that_cannot_be(program):
    one_layer = dataclasses.replace(program.pack.model, d_ff=(256,))
    with pytest.raises(InputError, match="dose.starts=mlp_first cannot be: .*this model has 1 layer; set --config.mod"):
        starts.check(starts.MLP_FIRST, one_layer, languages()[0])
    with pytest.raises(InputError, match="hand_built cannot be: a start by hand at dose 6 needs one head"):
        starts.check(starts.HAND_BUILT, dataclasses.replace(one_layer, d_ff=(32,)), languages()[0])
    for start in starts.KNOWN:
        starts.check(start, program.pack.model, languages()[0])
    with pytest.raises(InputError, match="dose.starts=.* is not one of hand_built, no_attention, mlp_first"):
        frozen(dose__starts=("by_hand",))
    with pytest.raises(InputError, match="names a start twice"):
        frozen(dose__starts=("mlp_first", "mlp_first"))


def test_perturbed_weights_lie_a_millionth_off():
    drawn = {
        "kernel": np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32),
        "scale": np.ones(9, np.float32),
    }
    moved = starts.params(grid.PERTURBED, None, None, drawn)
    for name, leaf in drawn.items():
        off = moved[name] / leaf - 1
        assert moved[name].dtype == leaf.dtype and 0.7e-6 < off.std() < 1.4e-6 and np.abs(off).max() < 1e-5
    again = starts.params(grid.PERTURBED, None, None, drawn)
    assert all(np.array_equal(moved[name], again[name]) for name in drawn)
