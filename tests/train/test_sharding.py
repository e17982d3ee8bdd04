"""A batch split over devices trains as on one device."""

import json
import subprocess
import sys
import textwrap

import pytest

from train.config import InputError, MeshConfig
from train.run import sharding


def test_two_devices_train_as_one(tmp_path):
    """In a process of its own, since the number of devices is fixed when JAX starts."""
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 977} lines\n" for i in range(4000)))
    script = """
        import dataclasses, json, sys
        import jax, numpy as np
        jax.config.update("jax_num_cpu_devices", 2)
        from configs import smoke
        from train.data import corpora
        from train import grid
        from train.run import feed, packs
        from train.config import freeze
        from train.run.program import Program

        values = smoke.get_config().to_dict()
        values["grid"].update(tuning_seeds=(), extensions=0)
        values["data"] |= {"source": f"file:{sys.argv[1]}/text.txt", "seq_len": 16}
        losses = {}
        for devices in (1, 2):
            values["mesh"]["data"] = devices
            config = freeze(values)
            corpus = corpora.write_corpus(config.data, f"{sys.argv[1]}/data")
            cell = grid.cells_of(config, corpora.VOCAB_SIZE)[0]
            model, replica_map = packs.resolve(cell, config)
            pack = packs.Pack(0, model, cell.replicas, replica_map, packs.environment(config))
            program = Program(pack, config, feed.of(config, corpus, 0))
            state, metrics = program.run(program.init(), 0, 8)
            assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(state))
            losses[devices] = np.asarray(metrics["loss"])[:, :8].tolist()
        print(json.dumps(losses))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout)
    for one, two in zip(losses["1"], losses["2"], strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    assert losses["1"][0] != losses["1"][1]


@pytest.mark.slow
@pytest.mark.parametrize(("replica_map", "replicas"), [("scan", 3), ("vmap", 4)])
def test_replicas_over_two_devices_train_as_on_one(replica_map, replicas, tmp_path):
    """Also where the last device has one fewer; and the loop, checkpoints and a resume work with it."""
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 977} lines\n" for i in range(4000)))
    script = """
        import dataclasses, json, pathlib, sys
        import jax, numpy as np
        jax.config.update("jax_num_cpu_devices", 2)
        from configs import smoke
        from train.data import corpora
        from train import grid
        from train.run import feed, loop, packs
        from train.run.stops import Fixed
        from train.config import freeze
        from train.hosts.preemption import Notice, Preempted
        from train.run.program import Program
        from train.workdir import CellFolder

        class Silent:
            def say(self, text):
                print(text, file=sys.stderr)

            def steps(self, step, losses):
                stop._received() if step == 4 and stopping else None

        folder, replica_map, replicas = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
        values = smoke.get_config().to_dict()
        values["grid"].update(tuning_seeds=(), extensions=0, init_seeds=tuple(range(replicas)))
        values["data"] |= {"source": f"file:{folder}/text.txt", "seq_len": 16}
        values["train"] |= {"steps": 8, "warmup_steps": 2, "checkpoint_every": 4, "replica_map": replica_map}
        params = {}
        for devices in (1, 2):
            values["mesh"]["replicas"] = devices
            config = freeze(values)
            corpus = corpora.write_corpus(config.data, folder / "data")
            cell = grid.cells_of(config, corpora.VOCAB_SIZE)[0]
            model, replica_map = packs.resolve(cell, config)
            pack = packs.Pack(0, model, cell.replicas, replica_map, packs.environment(config))
            program = Program(pack, config, feed.of(config, corpus, 0))
            assert ("all-gather" in program._compiled.as_text()) == (devices == 2), "each device trains its own part"
            place, stopping, stop = CellFolder(folder / str(devices)), devices == 2, Notice()
            try:
                state = loop.train(program, place, config, "", Fixed(8), stop, Silent()).state
            except Preempted:
                stopping, stop = False, Notice()
                state = loop.train(program, place, config, "", Fixed(8), stop, Silent()).state
            params[devices] = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
        worst = max(np.abs(a - b).max() for a, b in zip(params[1], params[2]))
        print(json.dumps([float(worst), bool(np.any(params[1][0][0] != params[1][0][-1]))]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), replica_map, str(replicas)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    worst, differ = json.loads(done.stdout.splitlines()[-1])
    assert worst < 1e-5 and differ and "continues at step 4 of 8" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("replica_map", ["scan", "vmap"])
def test_runs_of_a_dose_over_two_devices_are_there_at_the_same_step(replica_map, tmp_path):
    """Also where the runs that are left are moved from one device to the other as others end."""
    script = """
        import dataclasses, json, pathlib, sys
        import jax, numpy as np
        jax.config.update("jax_num_cpu_devices", 2)
        from configs import relations
        from train import grid
        from train.config import freeze
        from train.data import sources
        from train.grid import Replica
        from train.hosts.preemption import Notice
        from train.run import feed, loop, metrics, packs
        from train.run.program import Program
        from train.run.stops import UntilLow
        from train.workdir import CellFolder

        class Silent:
            def __getattr__(self, name):
                return lambda *_: None

        folder, values = pathlib.Path(sys.argv[1]), relations.get_config().to_dict()
        values["grid"].update(d_model=(16,), num_heads=(2,), init_seeds=(3, 4, 5), tuning_seeds=(), extensions=0)
        values["grid"].update(learning_rates=(0.01,))
        values["train"] |= {"steps": 60, "batch_size": 4, "warmup_steps": 5, "replica_map": sys.argv[2]}
        values["dose"] |= {"look_every": 20, "documents": 8, "relations": (2,), "threshold": 1e-9}
        replicas = tuple(Replica(rate, seed, seed) for rate, seed in ((0.003, 3), (0.01, 4), (0.001, 5)))
        programs = {}

        def train(devices):
            values["mesh"]["replicas"] = devices
            config = freeze(values)
            (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
            model, replica_map = packs.resolve(cell, config)
            pack = packs.Pack(0, model, replicas, replica_map, packs.environment(config), dose=2)
            if devices not in programs:
                programs[devices] = Program(pack, config, feed.of(config, None, 2))
            rule = UntilLow(config, pack, 60, "test", False, None)
            place = CellFolder(folder / f"{devices} {config.dose.threshold}")
            ended = loop.train(programs[devices], place, config, "", rule, Notice(), Silent())
            assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(ended.state))
            losses = [line["loss"] for line in metrics.read(place.looks) if line["step"] == 20]
            params = [np.asarray(leaf) for leaf in jax.tree.leaves(ended.state.params)]
            return params, [dataclasses.asdict(one) for one in ended.outcomes], losses

        _, _, losses = train(1)
        values["dose"]["threshold"] = sum(sorted(losses)[1:]) / 2  # two runs are there at the first look
        (params, one, _), (others, two, _) = train(1), train(2)
        worst = max(np.abs(a - b).max() for a, b in zip(params, others))
        print(json.dumps([float(worst), one, two]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), replica_map]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    worst, one, two = json.loads(done.stdout.splitlines()[-1])
    first, second, last = sorted(run["steps"] for run in one)
    assert worst < 1e-5 and (first, second) == (20, 20) and last > 20
    for ours, theirs in zip(one, two, strict=True):
        assert ours["steps"] == theirs["steps"] and ours["why"] == theirs["why"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_too_few_devices_is_a_sentence():
    with pytest.raises(InputError, match="mesh.data=64, but"):
        sharding.make_mesh(MeshConfig(data=64, replicas=1))


@pytest.mark.parametrize(("backend", "data", "replicas", "found"), [
    ("cpu", 1, 0, 1), ("gpu", 1, 0, 4), ("tpu", 1, 0, 4), ("gpu", 2, 0, 1), ("gpu", 1, 3, 3),
])  # fmt: skip
def test_an_accelerator_host_shares_replicas_out_by_itself(backend, data, replicas, found, monkeypatch):
    monkeypatch.setattr(sharding.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(sharding.jax, "local_device_count", lambda: 4)
    assert sharding.replica_devices(MeshConfig(data=data, replicas=replicas)) == found
