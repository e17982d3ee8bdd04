"""Which replicas train together, and that a resume keeps it."""

import dataclasses
import shutil

import pytest

from configs import smoke
from train import grid
from train.config import InputError, freeze
from train.data import corpora
from train.hosts import memory
from train.run import feed, packs
from train.run.program import Program
from train.workdir import CellFolder


def config_of(**fields):
    config = smoke.get_config()
    config.grid.d_model, config.grid.num_heads, config.data.seq_len = (16,), (4,), 16
    config.grid.tuning_seeds = ()
    for name, value in fields.items():
        config.grid[name] = value
    return freeze(config.to_dict())


def cell_of(config, d_model: int = 16):
    return next(cell for cell in grid.cells_of(config, corpora.VOCAB_SIZE) if cell.model.d_model == d_model)


@pytest.fixture
def folder(tmp_path):
    return CellFolder(tmp_path / "cells" / "d016_h004")


def plan(config, folder, said=None):
    return packs.plan(cell_of(config), folder, config, 0, (said if said is not None else []).append)


def test_a_pack_is_written_before_its_first_step_and_read_back(folder):
    config = config_of(init_seeds=(0, 1))
    ((pack, trained),) = plan(config, folder)
    assert not trained and pack.index == 0 and [replica.init_seed for replica in pack.replicas] == [0, 1]
    assert pack.model.attention not in ("auto", "") and pack.replica_map in ("scan", "vmap")
    assert pack.environment == packs.environment(config)
    assert packs.from_json(folder.packs()[0]) == pack
    before = (folder.path / "packs.json").stat().st_mtime_ns
    assert plan(config, folder) == [(pack, False)]
    assert (folder.path / "packs.json").stat().st_mtime_ns == before


def test_added_replicas_get_a_pack_of_their_own(folder):
    ((first, _),) = plan(config_of(init_seeds=(0, 1)), folder)
    packs.mark_trained(folder, first, {"step": 20})
    grown = config_of(init_seeds=(0, 1, 2), learning_rates=(0.01, 0.02))
    (kept, done), (added, not_done) = plan(grown, folder)
    assert kept == first and done and not not_done and added.index == 1
    names = {replica.name for replica in added.replicas}
    assert names == {"lr0.01_i2_d2", "lr0.02_i0_d0", "lr0.02_i1_d1", "lr0.02_i2_d2"}
    assert set(added.replicas).isdisjoint(first.replicas)


def test_packs_are_as_large_as_the_memory_allows(folder):
    """Seven replicas where five fit: by the estimate, written down, and the same program serves both packs."""
    config = config_of(init_seeds=tuple(range(7)))
    model, replica_map = packs.resolve(cell_of(config), config)
    size = lambda count: memory.estimate(model, count, replica_map, config.train.batch_size, 0)  # noqa: E731
    allowed = (size(5) + size(6)) / 2 / 2**30
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, memory_limit_gb=allowed))
    (first, _), (second, _) = plan(config, folder)
    assert [len(pack.replicas) for pack in (first, second)] == [5, 2] and first.rows == second.rows == 5
    assert {*first.replicas} | {*second.replicas} == {*cell_of(config).replicas}
    assert plan(config, folder) == [(first, False), (second, False)]


def test_another_environment_starts_an_unfinished_pack_again(folder, monkeypatch):
    config, said = config_of(), []
    ((pack, _),) = plan(config, folder)
    folder.checkpoints(0).mkdir(parents=True)
    monkeypatch.setenv("XLA_FLAGS", "--xla_another")
    ((again, trained),) = plan(config, folder, said)
    assert not trained and again.environment["xla_flags"] == "--xla_another"
    assert again.replicas == pack.replicas and not folder.checkpoints(0).exists()
    assert said == [
        f"d016_h004 starts again from step 0, since its bits depend on xla_flags "
        f"{pack.environment['xla_flags']!r} -> '--xla_another'."
    ]


def test_another_environment_leaves_a_finished_pack(folder, monkeypatch):
    config, said = config_of(), []
    ((pack, _),) = plan(config, folder)
    packs.mark_trained(folder, pack, {"step": 20})
    folder.checkpoints(0).mkdir(parents=True)
    monkeypatch.setenv("XLA_FLAGS", "--xla_another")
    assert plan(config, folder, said) == [(pack, True)]
    assert not said and folder.checkpoints(0).exists()


def test_a_path_chosen_before_is_kept(folder, monkeypatch):
    config = config_of()
    ((pack, _),) = plan(config, folder)
    other = dataclasses.replace(pack.model, attention="reference")
    monkeypatch.setattr(packs, "resolve", lambda cell, config: (other, "vmap"))
    assert plan(config, folder) == [(pack, False)]


def test_a_cell_keeps_its_shape(folder):
    """A larger d_model raises the budget, and with it every d_ff."""
    config = config_of()
    ((pack, _),) = plan(config, folder)
    packs.check_shape(cell_of(config), folder, config)
    grown = config_of(d_model=(16, 64))
    with pytest.raises(InputError, match=r"d016_h004 another shape .*d_ff \(64, 64\) -> .*largest d_model"):
        packs.check_shape(cell_of(grown), folder, grown)
    shutil.rmtree(folder.path)
    packs.check_shape(cell_of(grown), folder, grown)


def test_marked_to_train_again(folder):
    config = config_of()
    ((pack, _),) = plan(config, folder)
    packs.mark_trained(folder, pack, {"step": 20})
    assert plan(config, folder)[0][1]
    packs.mark_trained(folder, pack, None)
    assert not plan(config, folder)[0][1]


@pytest.mark.parametrize(
    "backend, layers, asked, scanned",
    [
        ("gpu", 12, "auto", True),
        ("gpu", 11, "auto", False),
        ("cpu", 12, "auto", False),
        ("cpu", 2, "scanned", True),
        ("gpu", 12, "unrolled", False),
    ],
)
def test_deep_models_scan_their_layers_on_accelerators(backend, layers, asked, scanned, monkeypatch):
    config = smoke.get_config()
    config.grid.tuning_seeds, config.model.num_layers, config.model.layers = (), layers, asked
    config = freeze(config.to_dict())
    monkeypatch.setattr(packs.jax, "default_backend", lambda: backend)
    model, _ = packs.resolve(grid.cells_of(config, corpora.VOCAB_SIZE)[0], config)
    assert model.scan_layers == scanned


def test_the_form_of_the_layers_is_no_shape(folder):
    """A study of another backend, or of before there was a choice, goes on."""
    config = config_of(init_seeds=(0,))
    plan(config, folder)
    records = folder.packs()
    records[0]["model"]["scan_layers"] = True
    folder.write_packs(records)
    packs.check_shape(cell_of(config), folder, config)
    del records[0]["model"]["scan_layers"]
    folder.write_packs(records)
    packs.check_shape(cell_of(config), folder, config)


@pytest.mark.parametrize(
    "replicas, fields",
    [
        (1, {}),
        (12, {}),
        (4, {"train.replica_map": "vmap"}),
        (2, {"grid.num_heads": (16,)}),
        (2, {"model.attention": "reference", "data.seq_len": 64}),
        (2, {"model.remat": "block", "data.seq_len": 64}),
    ],
)
def test_the_estimate_is_near_what_the_compiled_program_needs(replicas, fields, tmp_path):
    """At most a tenth below, so that a pack that fits by the estimate does fit, and at most half above."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of {i * i % 977} lines\n" for i in range(4000)))
    values = smoke.get_config()
    values.grid.d_model, values.grid.num_heads, values.grid.init_seeds = (16,), (4,), tuple(range(replicas))
    values.grid.tuning_seeds, values.data.source = (), f"file:{text}"
    values.update_from_flattened_dict(fields)
    config = freeze(values.to_dict())
    corpus, (cell,) = corpora.write_corpus(config.data, tmp_path / "data"), grid.cells_of(config, corpora.VOCAB_SIZE)
    model, replica_map = packs.resolve(cell, config)
    pack = packs.Pack(0, model, cell.replicas, replica_map, packs.environment(config))
    estimated = memory.estimate(model, replicas, replica_map, config.train.batch_size, len(corpus.tokens))
    assert 0.9 < estimated / Program(pack, config, feed.of(config, corpus, 0)).bytes < 1.5
