"""A batch split over devices trains as on one device."""

import json
import subprocess
import sys
import textwrap

import pytest

from train import sharding
from train.config import InputError


def test_two_devices_train_as_one(tmp_path):
    """In a process of its own, since the number of devices is fixed when JAX starts."""
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 977} lines\n" for i in range(4000)))
    script = """
        import dataclasses, json, sys
        import jax, numpy as np
        jax.config.update("jax_num_cpu_devices", 2)
        from configs import smoke
        from train import data, grid, packs
        from train.config import freeze
        from train.program import Program

        values = smoke.get_config().to_dict()
        values["grid"].update(tuning_seeds=(), extensions=0)
        values["data"] |= {"source": f"file:{sys.argv[1]}/text.txt", "seq_len": 16}
        losses = {}
        for devices in (1, 2):
            values["mesh"]["data"] = devices
            config = freeze(values)
            corpus = data.load_or_write(config.data, f"{sys.argv[1]}/data")
            cell = grid.cells_of(config, data.VOCAB_SIZE)[0]
            model, replica_map = packs.resolve(cell, config)
            pack = packs.Pack(0, model, cell.replicas, replica_map, packs.environment(config))
            program = Program(pack, config, corpus)
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


def test_too_few_devices_is_a_sentence():
    with pytest.raises(InputError, match="mesh.data=64, but"):
        sharding.make_mesh(64)
