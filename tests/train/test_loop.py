"""The loop ends with the same bits however it is stopped, cut into dispatches, or neighboured."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import smoke
from train import grid
from train.config import freeze
from train.data import corpora
from train.hosts.preemption import Notice, Preempted
from train.run import feed, loop, metrics, packs
from train.run.feed import STEPS_PER_DISPATCH
from train.run.program import Program
from train.run.stops import Fixed
from train.workdir import CellFolder

WORDS = "the of and a to in is was that for it with as his on be at by had not are but from or have an they".split()
SANE, INSANE = 0.02, 1e30


class Silent:
    def say(self, text):
        pass

    def steps(self, step, losses):
        pass


@pytest.fixture(scope="module", autouse=True)
def compile_cache(tmp_path_factory):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(" ".join(np.random.default_rng(0).choice(WORDS, 8000)))
    config = smoke.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.init_seeds = (16,), (4,), (0, 1, 2)
    config.grid.tuning_seeds = ()
    config.model.num_layers, config.data.seq_len, config.data.source = 1, 16, f"file:{text}"
    config.train.steps, config.train.batch_size, config.train.log_every = 12, 4, 5
    config.train.checkpoint_every = 4
    return freeze(config.to_dict())


@pytest.fixture(scope="module")
def corpus(config, tmp_path_factory):
    return corpora.write_corpus(config.data, tmp_path_factory.mktemp("data"))


def program_of(config, corpus, replica_map="scan", rates=(SANE,) * 3) -> Program:
    (cell,) = grid.cells_of(config, corpora.VOCAB_SIZE)
    replicas = tuple(
        dataclasses.replace(replica, learning_rate=rate) for replica, rate in zip(cell.replicas, rates, strict=True)
    )
    model, _ = packs.resolve(cell, config)
    return Program(
        packs.Pack(0, model, replicas, replica_map, packs.environment(config)), config, feed.of(config, corpus, 0)
    )


@pytest.fixture(scope="module")
def program(config, corpus):
    return program_of(config, corpus)


@pytest.fixture(scope="module", params=[3, 2], ids=["a full pack", "a pack with a spare row"])
def any_program(request, program, config, corpus):
    replicas = program.pack.replicas[: request.param]
    return Program(dataclasses.replace(program.pack, replicas=replicas), config, feed.of(config, corpus, 0), [program])


def train(program, config, path, stop=None):
    rule = Fixed(config.train.steps)
    ended = loop.train(program, CellFolder(path), config, "fingerprint", rule, stop or Notice(), Silent())
    assert ended.step == config.train.steps and ended.outcomes == [] and not CellFolder(path).looks.exists()
    return ended.state


def bits(state, replica=None):
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf if replica is None else leaf[replica]), state)
    return [leaf.tobytes() for leaf in jax.tree.leaves(chosen)]


@pytest.fixture(scope="module")
def trained(program, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet") / "cell"
    return train(program, config, folder), folder


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("replica_map", ["scan", "vmap"])
def test_a_replica_that_diverges_leaves_its_neighbours_untouched(replica_map, config, corpus, tmp_path):
    sane = train(program_of(config, corpus, replica_map), config, tmp_path / "sane")
    mixed = train(program_of(config, corpus, replica_map, (SANE, INSANE, SANE)), config, tmp_path / "mixed")
    assert np.asarray(sane.diverged_at).tolist() == [-1, -1, -1]
    (at,) = [step for step in np.asarray(mixed.diverged_at).tolist() if step >= 0]
    assert mixed.diverged_at[1] == at < config.train.steps
    for neighbour in (0, 2):
        assert bits(sane, neighbour) == bits(mixed, neighbour)
    assert bits(sane, 1) != bits(mixed, 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mixed.params)), "frozen at its last finite state"


def test_frozen_means_frozen(config, corpus, tmp_path):
    """The state of a diverged replica is that of the step at which it diverged, however long the others go on."""
    program = program_of(config, corpus, rates=(SANE, INSANE, SANE))
    state, _ = program.run(program.init(), 0, config.train.steps)
    at = int(state.diverged_at[1])
    before, _ = program.run(program.init(), 0, at)
    assert bits(state.params, 1) == bits(before.params, 1)


def test_the_state_is_donated(any_program):
    """Its memory is the next state's, so that a program needs one state and not two."""
    state = any_program.init()
    any_program.run(state, 0, 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_metrics_are_read_while_the_next_dispatch_runs(program, config, tmp_path, monkeypatch):
    """Each a dispatch late, but before a save, which waits anyway."""
    order = []
    run, read_back = Program.run, loop.read_back

    def noted_run(self, state, first, count, rows):
        order.append(f"run {first}")
        return run(self, state, first, count, rows)

    def noted_read(found):
        order.append("read")
        return read_back(found)

    monkeypatch.setattr(Program, "run", noted_run)
    monkeypatch.setattr(loop, "read_back", noted_read)
    monkeypatch.setattr(loop, "_next_dispatch", lambda dispatch, seconds: 2)
    train(program, config, tmp_path / "cell")
    assert order == ["run 0", "run 1", "read", "run 3", "read", "read", "run 4", "run 6", "read", "read"] + [
        "run 8", "run 10", "read", "read"
    ]  # fmt: skip


def test_metrics_of_every_logged_step_once(trained, program, config):
    _, folder = trained
    found = lines(folder)
    assert [(line["step"], line["replica"]) for line in found] == [
        (step, replica.name) for step in (0, 5, 10, 11) for replica in program.pack.replicas
    ]
    assert all({"loss", "grad_norm", "learning_rate", "pack"} <= set(line) for line in found)
    first, last = ([line["loss"] for line in found if line["step"] == step] for step in (0, 11))
    assert np.mean(last) < np.mean(first)


@pytest.mark.parametrize("dispatch", [1, 5])
def test_the_length_of_dispatches_shapes_no_bits(dispatch, trained, program, config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_next_dispatch", lambda *_: dispatch)
    assert bits(train(program, config, tmp_path)) == bits(trained[0])
    assert lines(tmp_path) == lines(trained[1])


@pytest.mark.parametrize("asked_at", [1, 2, 3])
def test_stopped_and_continued(asked_at, trained, program, config, tmp_path, monkeypatch):
    stop, calls, read_back = Notice(), [], loop.read_back

    def asked(values):
        calls.append(None)
        if len(calls) == asked_at:
            stop._received()
        return read_back(values)

    monkeypatch.setattr(loop, "read_back", asked)
    with pytest.raises(Preempted):
        train(program, config, tmp_path, stop)
    saved = loop.checkpoint.steps_in(CellFolder(tmp_path).checkpoints(0))
    assert 0 < saved[0] < config.train.steps
    assert all(line["step"] < saved[0] for line in lines(tmp_path))
    assert bits(train(program, config, tmp_path)) == bits(trained[0])
    assert lines(tmp_path) == lines(trained[1])


def keeping(config, *steps):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, keep_checkpoints=steps))


def test_chosen_steps_stay_and_shape_no_bits(trained, program, config, tmp_path):
    """Every 4 steps one is saved, and the newest two of all are kept."""
    store = CellFolder(tmp_path).checkpoints(0)
    assert bits(train(program, keeping(config, 7, 1, 3), tmp_path)) == bits(trained[0])
    assert lines(tmp_path) == lines(trained[1])
    assert loop.checkpoint.steps_in(store) == [12, 8, 7, 3, 1]
    assert loop.checkpoint.steps_in(CellFolder(trained[1]).checkpoints(0)) == [12, 8]
    for step in (1, 3, 7):
        restored = loop.checkpoint.restore(store, step, loop.items_of(program.abstract_state))
        then, _ = program.run(program.init(), 0, step)
        assert bits(loop.state_of(restored)) == bits(program.replicas_of(then))


@pytest.mark.parametrize("asked_at", [2, 4])
def test_chosen_steps_of_a_run_that_was_stopped(asked_at, trained, program, config, tmp_path, monkeypatch):
    stop, calls, read_back = Notice(), [], loop.read_back
    monkeypatch.setattr(
        loop,
        "read_back",
        lambda found: calls.append(0) or len(calls) == asked_at and stop._received() or read_back(found),
    )
    with pytest.raises(Preempted):
        train(program, keeping(config, 1, 3, 9), tmp_path, stop)
    assert bits(train(program, keeping(config, 1, 3, 9), tmp_path)) == bits(trained[0])
    assert {1, 3, 9, 12} <= {*loop.checkpoint.steps_in(CellFolder(tmp_path).checkpoints(0))}


def test_a_stop_at_any_moment_leaves_a_checkpoint_of_the_last_step(program, config, tmp_path, monkeypatch):
    """Also one that comes just after the loop has looked for it."""

    class Late(Notice):
        asked = 0

        @property
        def requested(self):
            self.asked += 1
            return self.asked > 1

        @requested.setter
        def requested(self, value):
            pass

    monkeypatch.setattr(loop, "_next_dispatch", lambda *_: 2)
    stop, ran, run = Late(), [], Program.run
    monkeypatch.setattr(stop, "wait_for", lambda work: work())
    monkeypatch.setattr(
        Program,
        "run",
        lambda self, state, first, count, rows: ran.append(count) or run(self, state, first, count, rows),
    )
    with pytest.raises(Preempted):
        train(program, config, tmp_path, stop)
    assert loop.checkpoint.steps_in(CellFolder(tmp_path).checkpoints(0))[0] == sum(ran) == 3


def test_a_trace_of_some_steps(trained, program, config, tmp_path, monkeypatch):
    """The bits are those without it, and it holds the dispatches of these steps alone."""
    calls, run = [], program.run
    monkeypatch.setattr(
        program, "run", lambda state, step, count, rows: calls.append((step, count)) or run(state, step, count, rows)
    )
    started, start = [], jax.profiler.start_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: started.append(len(calls)) or start(folder))
    stop = jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: started.append(len(calls)) or stop())
    traced = dataclasses.replace(config, train=dataclasses.replace(config.train, profile_steps=(5, 9)))
    assert bits(train(program, traced, tmp_path)) == bits(trained[0])
    steps = [step + index for step, count in calls[slice(*started)] for index in range(count)]
    assert len(started) == 2 and steps == [5, 6, 7, 8, 9]
    (found,) = CellFolder(tmp_path).profile(0).rglob("*.xplane.pb")
    assert found.stat().st_size > 1000


def test_a_trace_that_is_cut_short_is_written(program, config, tmp_path, monkeypatch):
    stop = Notice()
    monkeypatch.setattr(loop, "read_back", lambda values, real=loop.read_back: stop._received() or real(values))
    traced = dataclasses.replace(config, train=dataclasses.replace(config.train, profile_steps=(0, 9)))
    with pytest.raises(Preempted):
        train(program, traced, tmp_path, stop)
    assert list(CellFolder(tmp_path).profile(0).rglob("*.xplane.pb"))
    jax.profiler.start_trace(tmp_path / "another")  # would raise if one still ran
    jax.profiler.stop_trace()


class Sealed:
    """A value on the device that nobody may look at: no attribute, item, number or array of it can be had."""

    def __init__(self, value):
        self._open = lambda: value

    def __getattr__(self, name):
        raise AssertionError(f"{name} of a device value was looked at")

    def __array__(self, *_, **__):
        raise AssertionError("a device value was read")


@pytest.fixture
def compilations():
    """The compiles, cached ones too, as they happen."""
    found = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_ten_steady_dispatches(any_program, config, tmp_path, monkeypatch, compilations):
    """No compile, no implicit transfer, and no look at a device value but through `read_back`, a dispatch late.

    A transfer guard alone proves nothing on CPU, where NumPy reads device memory as its own: so the loop gets sealed
    values, which only `read_back` and the next dispatch open.
    """
    train_config = dataclasses.replace(config.train, steps=12, checkpoint_every=12)
    steady = dataclasses.replace(config, train=train_config)
    monkeypatch.setattr(loop, "_next_dispatch", lambda *_: 1)
    order, run, read_back = [], any_program.run, loop.read_back

    def dispatched(state, step, count, rows):
        order.append(f"dispatch {step}")
        if step == 2:  # whatever a process does only once has been done
            compilations.clear()
            jax.config.update("jax_transfer_guard", "disallow")
        state, metrics = run(state._open() if isinstance(state, Sealed) else state, step, count, rows)
        if step + count < train_config.steps:
            return Sealed(state), Sealed(metrics)
        jax.config.update("jax_transfer_guard", "allow")
        order.append(f"{len(compilations)} compiles")
        return state, Sealed(metrics)

    def read(metrics):
        order.append("read back")
        return read_back(metrics._open())

    monkeypatch.setattr(any_program, "run", dispatched)
    monkeypatch.setattr(loop, "read_back", read)
    try:
        train(any_program, steady, tmp_path)
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    late = [line for step in range(1, 12) for line in (f"dispatch {step}", "read back")]
    assert order == ["dispatch 0", *late[:-1], "0 compiles", "read back", "read back"]


def test_the_checks_of_steady_dispatches_are_on(program, compilations):
    with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
        jax.jit(lambda x: x + 1)(np.float32(1))
    jax.jit(lambda x: x - len(compilations))(1.0)
    assert compilations
    for look in (np.asarray, jax.device_get, jax.block_until_ready, lambda sealed: sealed.params):
        with pytest.raises(AssertionError, match="device value was"):
            look(Sealed(jax.numpy.ones(3)))


def test_continued_when_nothing_is_left_to_do(trained, program, config):
    state, folder = trained
    before = lines(folder)
    assert bits(train(program, config, folder)) == bits(state)
    assert lines(folder) == before


def test_dispatches_grow_while_short_and_shrink_while_long():
    assert loop._next_dispatch(1, 0.01) == 2
    assert loop._next_dispatch(STEPS_PER_DISPATCH, 0.01) == STEPS_PER_DISPATCH
    assert loop._next_dispatch(8, 0.75 * loop.DISPATCH_SECONDS) == 8
    assert loop._next_dispatch(8, 3.0) == 4 and loop._next_dispatch(1, 30.0) == 1


def test_a_log_drops_what_lies_beyond_and_what_is_torn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = metrics.Log(path, pack=0, first=0)
    for step in range(4):
        log.write("a", step, {"loss": 1.0 if step else float("nan")})
    log.close()
    other = metrics.Log(path, pack=1, first=0)
    other.write("b", 3, {"loss": 2.0})
    other.close()
    with open(path, "ab") as file:
        file.write(b'{"pack": 0, "step": 4, "repl\xff')
    assert len(metrics.read(path)) == 5
    again = metrics.Log(path, pack=0, first=2)
    assert again.lines == [line for line in metrics.read(path) if line["pack"] == 0]
    again.close()
    kept = metrics.read(path)
    assert [(line["pack"], line["step"], line["loss"]) for line in kept] == [(0, 0, None), (0, 1, 1.0), (1, 3, 2.0)]
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_program_with_room_for_more_gives_the_same_bits(replicas, program, config, corpus, tmp_path):
    """Rows of the program that a pack does not need are not trained, and one program serves packs of several sizes."""
    pack = dataclasses.replace(program.pack, replicas=program.pack.replicas[:replicas])
    small = dataclasses.replace(config, grid=dataclasses.replace(config.grid, init_seeds=(0,)))
    source = feed.of(config, corpus, 0)
    alone = Program(pack, small if replicas == 1 else config, source)
    shared = Program(pack, config, source, [program])
    assert shared._compiled is program._compiled and (alone._compiled is not shared._compiled)
    assert bits(train(shared, config, tmp_path / "shared")) == bits(train(alone, config, tmp_path / "alone"))
    other = dataclasses.replace(pack, model=dataclasses.replace(pack.model, d_ff=(7,)))
    assert Program(other, config, source, [program])._compiled is not program._compiled
