"""Runs that train until they are there: the looks decide, and neither a neighbour nor a stop changes a bit of a run."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import relations
from train import grid
from train.config import freeze
from train.data import sources
from train.data.relations import doses
from train.grid import Replica
from train.hosts.preemption import Notice, Preempted
from train.run import checkpoint, feed, loop, metrics, packs, stops
from train.run.program import Program
from train.run.stops import Outcome, UntilLow
from train.workdir import CellFolder

REPLICAS = tuple(Replica(rate, seed, seed) for rate, seed in ((0.003, 3), (0.01, 4), (0.001, 5)))
NAMES = [replica.name for replica in REPLICAS]
EVERY, CAP = 20, 60
MIDDLE_FIRST = {3: {40: 0.04}, 4: {20: 0.03}}  # what looks say where runs end one after another, from the middle


def frozen(**changes):
    config = relations.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.learning_rates = (16,), (2,), (0.003, 0.01)
    config.grid.init_seeds = (0, 1)
    config.train.steps, config.train.batch_size, config.train.warmup_steps = CAP, 4, 5
    config.train.log_every, config.train.checkpoint_every = 7, EVERY
    config.dose.look_every, config.dose.documents, config.dose.relations = EVERY, 8, (2,)
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return freeze(config.to_dict())


class Silent:
    """Asks to stop once it hears of step `after`."""

    def __init__(self, stop=None, after=None):
        self.stop, self.after, self.heard = stop, after, []

    def say(self, text):
        pass

    def steps(self, step, losses):
        self.heard.append((step, len(losses)))
        if self.after == step:
            self.stop._received()


def program_of(replicas=REPLICAS, replica_map="scan", before=()) -> Program:
    config = frozen()
    (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
    model, _ = packs.resolve(cell, config)
    pack = packs.Pack(0, model, replicas, replica_map, packs.environment(config), dose=2)
    return Program(pack, config, feed.of(config, None, 2), before)


@pytest.fixture(scope="module")
def program():
    return program_of()


def train(program, path, config=None, stop=None, progress=None) -> loop.Trained:
    config = config or frozen()
    rule = UntilLow(config, program.pack, CAP, "test", False, None)
    return loop.train(program, CellFolder(path), config, "", rule, stop or Notice(), progress or Silent())


@pytest.fixture
def told(monkeypatch):
    """Makes looks say `losses`, seed -> step -> loss, else .6; returns what will hold each seed's weights by step."""

    def tell(losses: dict) -> dict:
        step, seen = [0], {}

        def of_seeds(model, params, config, dose, split, seeds):
            step[0] += EVERY
            assert (dose, split) == (2, "test")
            for row, seed in enumerate(seeds):
                seen[seed, step[0]] = bits(params, row)
            found = [losses.get(seed, {}).get(step[0], 0.6) for seed in seeds]
            return [{"loss": loss, "relations": {"P1": loss, "P2": loss}} for loss in found]

        monkeypatch.setattr(stops.answers, "of_seeds", of_seeds)
        return seen

    return tell


def weighed(model, params, config, dose, split, seeds):
    """A look that tells the weights apart to the last bit, and falls as they grow."""
    sums = [
        sum(np.abs(np.float64(leaf[row])).sum() for leaf in jax.tree.leaves(jax.device_get(params)))
        for row in range(len(seeds))
    ]
    return [{"loss": 1e3 / total, "relations": {"P1": total}} for total in sums]


def bits(tree, row) -> bytes:
    return b"".join(np.asarray(leaf[row]).tobytes() for leaf in jax.tree.leaves(tree))


def test_a_run_ends_at_its_first_look_below_and_the_rest_go_on(program, told, tmp_path):
    told(MIDDLE_FIRST)
    progress = Silent()
    found = train(program, tmp_path, progress=progress)
    assert found.step == CAP
    assert found.outcomes == [Outcome(40, "reached", 0.04), Outcome(20, "reached", 0.03), Outcome(60, "capped", 0.6)]
    first, second, third = NAMES
    lines = metrics.read(tmp_path / "looks.jsonl")
    assert [(line["step"], line["replica"]) for line in lines] == [
        (20, first), (20, second), (20, third), (40, first), (40, third), (60, third),
    ]  # fmt: skip
    assert lines[1] == {"pack": 0, "step": 20, "replica": second, "loss": 0.03, "relations": {"P1": 0.03, "P2": 0.03}}
    assert {(20, 3), (40, 2), (60, 1)} <= set(progress.heard), "a loss of each run that trains"


def test_all_there_ends_at_once(program, told, tmp_path):
    told({seed: {20: 0.05} for seed in (3, 4, 5)})
    progress = Silent()
    found = train(program, tmp_path, frozen(train__checkpoint_every=50), progress=progress)
    assert [run.steps for run in found.outcomes] == [20] * 3 and found.step == progress.heard[-1][0] == 20
    assert checkpoint.steps_in(CellFolder(tmp_path).checkpoints(0)) == [20]
    again = train(program, tmp_path)
    assert again.outcomes == found.outcomes and again.step == 20, "nothing is left to do"
    assert all(bits(again.state, row) == bits(found.state, row) for row in range(3))


def test_a_run_that_diverges_counts_as_capped_at_chance(program, told, tmp_path):
    told({3: {20: float("nan")}, 4: {20: 0.03}, 5: {20: 0.03}})
    found = train(program, tmp_path)
    assert found.outcomes[0] == Outcome(60, "diverged", np.log(2))
    assert metrics.read(tmp_path / "looks.jsonl")[0]["loss"] is None


@pytest.fixture
def undisturbed(program, told, tmp_path):
    """The weights of each seed and step where no run ends."""
    seen = told({})
    train(program, tmp_path / "undisturbed")
    assert len(seen) == 9 and len(set(seen.values())) == 9
    return seen


def test_a_run_has_the_same_bits_however_the_others_end(program, undisturbed, told, tmp_path):
    seen = told(MIDDLE_FIRST)
    found = train(program, tmp_path / "some end")
    assert seen.keys() == undisturbed.keys() - {(3, 60), (4, 40), (4, 60)}
    assert all(undisturbed[key] == value for key, value in seen.items())
    ended_at = dict(zip((3, 4, 5), (40, 20, 60), strict=True))
    assert [bits(found.state.params, row) for row in range(3)] == [undisturbed[key] for key in ended_at.items()]
    alone, seen = program_of(REPLICAS[1:2], before=[program]), told({})
    train(alone, tmp_path / "alone")
    assert seen == {(4, step): undisturbed[4, step] for step in (20, 40, 60)}


def test_checkpoints_hold_the_replicas_in_their_own_order(program, undisturbed, told, tmp_path):
    """However rows were moved as runs ended, and with what their optimizer had then."""
    told(MIDDLE_FIRST)
    train(program, tmp_path)
    store = CellFolder(tmp_path).checkpoints(0)
    assert checkpoint.steps_in(store) == [60, 40]
    for step, taken in ((40, (40, 20, 40)), (60, (40, 20, 60))):
        state = loop.state_of(checkpoint.restore(store, step, loop.items_of(program.abstract_state)))
        for row, (seed, at) in enumerate(zip((3, 4, 5), taken, strict=True)):
            assert bits(state.params, row) == undisturbed[seed, at]
        counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32]
        assert counts and all(tuple(count.tolist()) == taken for count in counts)


def test_under_vmap_too_an_ended_run_stays_as_it_is(program, told, tmp_path):
    """It ends as under scan, with the same weights but for rounding."""
    told(MIDDLE_FIRST)
    scanned = train(program, tmp_path / "scan")
    seen = told(MIDDLE_FIRST)
    mapped = train(program_of(replica_map="vmap"), tmp_path / "vmap")
    assert mapped.outcomes == scanned.outcomes
    for row, key in enumerate(((3, 40), (4, 20), (5, 60))):
        assert bits(mapped.state.params, row) == seen[key], "it moved after it had ended"
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=1e-6), mapped.state, scanned.state)


@pytest.fixture
def quiet(program, tmp_path, monkeypatch):
    """(folder, config, what an undisturbed training came to) where the middle run is the first to be there."""
    monkeypatch.setattr(stops.answers, "of_seeds", weighed)
    monkeypatch.setattr(loop, "_next_dispatch", lambda *_: 6)
    train(program, tmp_path / "never", frozen(dose__threshold=1e-9))
    looks = metrics.read(tmp_path / "never" / "looks.jsonl")
    (at_first,) = [line["loss"] for line in looks if (line["replica"], line["step"]) == (NAMES[1], EVERY)]
    config = frozen(dose__threshold=at_first)
    found = train(program, tmp_path / "quiet", config)
    assert [run.why for run in found.outcomes][1:] == ["reached", "capped"] and found.outcomes[1].steps == EVERY
    return tmp_path / "quiet", config, found


def same(folder, found, quiet) -> None:
    wanted_folder, _, wanted = quiet
    assert found.outcomes == wanted.outcomes
    assert all(bits(found.state, row) == bits(wanted.state, row) for row in range(3))
    for name in ("looks.jsonl", "metrics.jsonl"):
        assert (folder / name).read_text() == (wanted_folder / name).read_text()


@pytest.mark.parametrize("after", [7, 20, 26, 40])
def test_stopped_and_continued_is_as_undisturbed(after, program, quiet, tmp_path):
    """Whichever dispatch the stop comes after, and whatever a crash left in the logs beyond its checkpoint."""
    folder, stop = tmp_path / "stopped", Notice()
    with pytest.raises(Preempted):
        train(program, folder, quiet[1], stop, Silent(stop, after))
    at = checkpoint.steps_in(CellFolder(folder).checkpoints(0))[0]
    assert after <= at < CAP
    for name in ("looks.jsonl", "metrics.jsonl"):
        with open(folder / name, "a") as file:
            file.write(json.dumps({"pack": 0, "step": at + EVERY, "replica": NAMES[0], "loss": 9.0}) + '\n{"step"')
    same(folder, train(program, folder, quiet[1]), quiet)


class Killed(BaseException):
    pass


def test_killed_between_a_look_and_its_checkpoint(program, quiet, tmp_path, monkeypatch):
    """The look is taken again, from the checkpoint before."""
    folder, save = tmp_path / "killed", checkpoint.Saver.save

    def killed(self, step, *args):
        if step == 40:
            raise Killed
        save(self, step, *args)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoint.Saver, "save", killed)
        train(program, folder, quiet[1])
    assert {line["step"] for line in metrics.read(folder / "looks.jsonl")} == {20, 40}
    assert checkpoint.steps_in(CellFolder(folder).checkpoints(0)) == [20]
    same(folder, train(program, folder, quiet[1]), quiet)


@pytest.mark.slow
def test_real_looks(program, tmp_path, monkeypatch):
    """Stopped and continued, and alone, a run has the same looks, at the relations of its own language."""
    monkeypatch.setattr(loop, "_next_dispatch", lambda *_: 6)
    train(program, tmp_path / "quiet")
    looks = metrics.read(tmp_path / "quiet" / "looks.jsonl")
    assert len(looks) == 9 and all(0.1 < line["loss"] < 4 for line in looks)
    for line, replica in zip(looks[:3], REPLICAS, strict=True):
        assert tuple(line["relations"]) == doses.spoken(frozen().data, 2, replica.data_seed).relations
    for after in (20, 40):
        folder, stop = tmp_path / str(after), Notice()
        with pytest.raises(Preempted):
            train(program, folder, None, stop, Silent(stop, after))
        train(program, folder)
        assert (folder / "looks.jsonl").read_text() == (tmp_path / "quiet" / "looks.jsonl").read_text()
    train(program_of(REPLICAS[1:2], before=[program]), tmp_path / "alone")
    alone = metrics.read(tmp_path / "alone" / "looks.jsonl")
    assert [line for line in looks if line["replica"] == NAMES[1]] == alone


def test_what_is_logged_saved_and_traced_is_as_asked(program, told, tmp_path, monkeypatch):
    told(MIDDLE_FIRST)
    config = frozen(train__log_every=8, train__checkpoint_every=15, train__profile_steps=(22, 24))
    saved, save = [], checkpoint.Saver.save
    monkeypatch.setattr(
        checkpoint.Saver, "save", lambda self, step, *args: saved.append(step) or save(self, step, *args)
    )
    edges = []
    start, stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: edges.append(len(ran)) or start(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: edges.append(len(ran)) or stop())
    ran, run = [], Program.run

    def counted(self, state, first, count, rows):
        ran.append(range(first, first + count))
        return run(self, state, first, count, rows)

    monkeypatch.setattr(Program, "run", counted)
    train(program, tmp_path, config)
    assert saved == [15, 30, 45, 60]
    assert [step for dispatch in ran[slice(*edges)] for step in dispatch] == [22, 23, 24]
    assert list(CellFolder(tmp_path).profile(0).rglob("*.xplane.pb"))
    logged = [0, 8, 16, 24, 32, 40, 48, 56, 59]
    lines = metrics.read(tmp_path / "metrics.jsonl")
    for name, ended in zip(NAMES, (40, 20, 60), strict=True):
        mine = [line for line in lines if line["replica"] == name]
        assert [line["step"] for line in mine] == [step for step in logged if step < ended]
        assert all(np.isfinite([line["loss"], line["grad_norm"], line["learning_rate"]]).all() for line in mine)
        rate = next(replica.learning_rate for replica in REPLICAS if replica.name == name)
        assert all(line["learning_rate"] == pytest.approx(rate) for line in mine if line["step"] >= 5)


def test_logs_of_packs_beside_each_other(program, told, tmp_path):
    """A pack that begins, or continues, leaves the lines of the cell's others."""
    told({seed: {20: 0.05} for seed in (3, 4, 5)})
    train(program, tmp_path)
    before = [metrics.read(tmp_path / name) for name in ("looks.jsonl", "metrics.jsonl")]
    second = program_of((Replica(0.01, 6, 6),), before=[program])
    second.pack = dataclasses.replace(second.pack, index=1)
    told({})
    found = train(second, tmp_path)
    after = [metrics.read(tmp_path / name) for name in ("looks.jsonl", "metrics.jsonl")]
    assert found.outcomes == [Outcome(60, "capped", 0.6)]
    for old, new in zip(before, after, strict=True):
        assert new[: len(old)] == old and {line["pack"] for line in new[len(old) :]} == {1}
