"""Where cells run if nobody says, and the slots that there are."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import pytest

from configs import default, relations
from train import grid
from train.config import InputError, freeze
from train.data import corpora, sources
from train.files import write_json
from train.hosts import memory, placement, slots
from train.hosts.slots import Launcher
from train.run import packs
from train.workdir import Workdir

NOBODY = Launcher("", 0, ())


@pytest.fixture
def config():
    return freeze(default.get_config().to_dict())


@pytest.fixture
def cores(monkeypatch):
    """Sets how many there are."""

    def give(number: int) -> None:
        monkeypatch.setattr(slots, "threads", lambda: number)
        monkeypatch.setattr(slots, "count", lambda platform, devices: number)

    return give


def workers(config, workdir, launcher=NOBODY) -> int:
    cells = grid.cells_of(config, sources.vocab_size(config.data))
    return placement.workers_for(launcher, config, Workdir(workdir), cells)


def test_workers_run_where_there_is_a_cell_for_every_core(config, cores, tmp_path):
    for number, expected in ((1, 0), (2, 2), (6, 6), (8, 0)):
        cores(number)
        assert workers(config, tmp_path) == expected
    one_cell = dataclasses.replace(config, grid=dataclasses.replace(config.grid, num_heads=(8,), d_model=(64,)))
    assert workers(one_cell, tmp_path) == 0


def test_workers_need_memory_side_by_side(config, cores, tmp_path, monkeypatch):
    cores(2)
    cells = grid.cells_of(config, corpora.VOCAB_SIZE)
    largest = sum(sorted(packs.estimates(cells, config, 0).values())[-2:])
    monkeypatch.setattr(memory, "limit", lambda config: largest)
    assert workers(config, tmp_path) == 2
    monkeypatch.setattr(memory, "limit", lambda config: largest - 1)
    assert workers(config, tmp_path) == 0


def test_a_study_goes_on_as_it_began(config, cores, tmp_path):
    cores(2)
    records = tmp_path / "cells" / "d064_h008" / "packs.json"
    for threads, expected in ((2, 0), (1, 2), (16, 2)):
        write_json(records, [{"environment": {"threads": threads}}])
        assert workers(config, tmp_path) == expected
    write_json(records, [{"environment": {"threads": 1}}])
    assert workers(config, tmp_path, Launcher("here", 0, ())) == 0
    assert workers(config, tmp_path, Launcher("processes", 1, ())) == 1
    with pytest.raises(InputError, match="this host has 2 slots"):
        workers(config, tmp_path, Launcher("processes", 3, ()))


def test_a_study_on_several_gpus_goes_on_as_it_began(config, cores, tmp_path, monkeypatch):
    cores(16)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    records = tmp_path / "cells" / "d064_h008" / "packs.json"
    for devices, expected in ((1, 6), (4, 0), (2, 0)):
        write_json(records, [{"environment": {"threads": 16, "devices": devices}}])
        assert workers(config, tmp_path) == expected


def test_cells_of_doses_run_in_workers_as_others_do(cores, tmp_path):
    """Every shape at every dose is a cell, each of which trains to its end by itself."""
    doses = freeze(relations.get_config().to_dict())
    for number, expected in ((1, 0), (2, 2), (6, 6), (8, 0)):
        cores(number)
        assert workers(doses, tmp_path) == expected
    assert workers(doses, tmp_path, Launcher("processes", 0, ())) == 6, "a worker a cell at most"
    assert workers(doses, tmp_path, Launcher("here", 0, ())) == 0
    several = dataclasses.replace(doses, mesh=dataclasses.replace(doses.mesh, replicas=2))
    cores(6)
    assert workers(several, tmp_path) == 0
    with pytest.raises(InputError, match="gives each worker one device, and mesh.data=1, mesh.replicas=2"):
        workers(several, tmp_path, Launcher("processes", 0, ()))


def test_a_study_of_doses_goes_on_as_it_began(cores, tmp_path):
    cores(2)
    doses = freeze(relations.get_config().to_dict())
    for threads, expected in ((2, 0), (1, 2)):
        write_json(tmp_path / "cells" / "d064_h008_r4" / "packs.json", [{"environment": {"threads": threads}}])
        assert workers(doses, tmp_path) == expected


FIRST = {"cgroup": "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n", "memory/a/b/memory.oom_control": "x 1\noom_kill 3\n",
         "memory/a/b/memory.limit_in_bytes": "1000\n", "cpu/cpu.cfs_quota_us": "150000\n",
         "cpu/cpu.cfs_period_us": "100000\n"}  # fmt: skip
SECOND = {"cgroup": "0::/a\n", "a/memory.events": "oom 7\noom_kill 2\n", "a/memory.max": "2000\n",
          "a/cpu.max": "50000 100000\n"}  # fmt: skip
NO_LIMIT = {"cgroup": "0::/hidden\n", "memory.max": "max\n", "cpu.max": "max 100000\n"}


@pytest.mark.parametrize(
    ("files", "kills", "memory", "time"),
    [(FIRST, 3, 1000, 1.5), (SECOND, 2, 2000, 0.5), (NO_LIMIT, 0, float("inf"), float("inf"))],
)
def test_control_groups_of_both_versions(files, kills, memory, time, tmp_path, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(slots, "ROOT", tmp_path)
    monkeypatch.setattr(slots, "ABOUT", tmp_path / "cgroup")
    assert (slots.oom_kills(), slots.memory_limit(), slots.quota()) == (kills, memory, time)


def test_slots_are_cores_within_the_quota_or_devices(monkeypatch):
    monkeypatch.setattr(slots, "threads", lambda: 8)
    for quota, expected in ((float("inf"), 8), (1.5, 2), (0.1, 1)):
        monkeypatch.setattr(slots, "quota", lambda quota=quota: quota)
        if hasattr(os, "sched_setaffinity"):
            assert slots.count("cpu", 1) == expected
        assert slots.count("gpu", 4) == 4


def test_a_slot_is_one_core_where_processes_can_be_kept_to_one(monkeypatch):
    monkeypatch.setattr(slots, "threads", lambda: 8)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    assert slots.threads_in_slot("cpu") == 1 and slots.threads_in_slot("gpu") == 8
    monkeypatch.delattr(os, "sched_setaffinity")
    assert slots.threads_in_slot("cpu") == 8


def test_a_worker_takes_its_slot_before_jax_counts_threads():
    """In processes of their own, each of which keeps what it took."""
    script = """
        import json, os, sys
        from train.hosts import slots
        slots.take(int(sys.argv[1]), sys.argv[2])
        assert "jax" not in sys.modules and "numpy" not in sys.modules
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        print(json.dumps([cores, os.environ.get("CUDA_VISIBLE_DEVICES")]))
    """
    script = "\n".join(line.strip() for line in script.splitlines())

    def taken(slot: int, platform: str, **environment):
        command = [sys.executable, "-c", script, str(slot), platform]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
        return json.loads(done.stdout)

    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        assert taken(len(cores) - 1, "cpu")[0] == cores[-1:]
    assert taken(1, "gpu")[1] == "1" and taken(1, "gpu", CUDA_VISIBLE_DEVICES="4,6")[1] == "6"
