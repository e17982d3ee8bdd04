"""A cell comes back from its folder and the workdir's data alone."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import smoke
from eval import restore
from train import grid
from train.config import InputError, freeze
from train.data import corpora
from train.losses import documents
from train.run import checkpoint, loop, packs, step
from train.workdir import Workdir

WORDS = "the of and a to in is was that for it with as his on be at by had not are but from or have an they".split()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(" ".join(np.random.default_rng(0).choice(WORDS, 8000)))
    config = smoke.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.init_seeds = (16,), (4,), (0, 1)
    config.grid.tuning_seeds = ()
    config.model.num_layers, config.data.seq_len, config.data.source = 1, 16, f"file:{text}"
    return freeze(config.to_dict())


@pytest.fixture(scope="module")
def saved(config, tmp_path_factory):
    """(workdir, pack, state): a cell as it is before step 0, saved as if it were trained."""
    workdir = Workdir(tmp_path_factory.mktemp("study") / "workdir")
    corpus = corpora.write_corpus(config.data, workdir.data)
    (cell,) = grid.cells_of(config, corpora.VOCAB_SIZE)
    folder = workdir.cell(cell.name)
    ((pack, _),) = packs.plan(cell, folder, config, 0, print)
    seeds = jnp.asarray([replica.init_seed for replica in pack.replicas], jnp.uint32)
    state = step.init(pack.model, config.train, seeds)
    with checkpoint.Saver(folder.checkpoints(0)) as saver:
        saver.save(20, loop.items_of(state), loop.describe(pack, config, corpus.fingerprint))
    return workdir, pack, state


@pytest.fixture
def moved(saved, tmp_path):
    """Only the checkpoints of the cell and the data, in another place."""
    workdir, pack, _ = saved
    cell = tmp_path / "elsewhere" / "cells" / "d016_h004"
    shutil.copytree(workdir.cell("d016_h004").path / "checkpoints", cell / "checkpoints")
    shutil.copytree(workdir.data, tmp_path / "elsewhere" / "data")
    return cell


def test_all_comes_from_the_folder(moved, saved, config):
    _, pack, state = saved
    restored = restore.restore(moved)
    assert restored.pack == pack and restored.step == 20
    assert freeze(restored.config) == config
    assert restored.corpus.fingerprint and restored.corpus.splits["test"]
    assert np.asarray(restored.diverged_at).tolist() == [-1, -1]
    for ours, theirs in zip(jax.tree.leaves(restored.params), jax.tree.leaves(state.params), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_a_checkpoint_of_a_chosen_step(moved, saved, config):
    """The newest is that of the last step whatever else is kept."""
    _, pack, state = saved
    corpus, earlier = corpora.open_corpus(moved.parent.parent / "data"), jax.tree.map(lambda leaf: leaf + 1, state)
    with checkpoint.Saver(moved / "checkpoints" / "pack_0", kept=(20, 30)) as saver:
        for step in (30, 40, 50, 60):
            values = loop.items_of(earlier if step == 30 else state)
            saver.save(step, values, loop.describe(pack, config, corpus.fingerprint))
    assert restore.restore(moved).step == 60
    chosen = restore.restore(moved, step=30)
    assert chosen.step == 30 and restore.restore(moved, step=20).step == 20
    for ours, theirs in zip(jax.tree.leaves(chosen.params), jax.tree.leaves(earlier.params), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    with pytest.raises(InputError, match="holds no checkpoint of step 40, but of 20, 30, 50, 60; .*keep_checkpoints"):
        restore.restore(moved, step=40)


def test_the_same_pack_at_a_step_that_was_kept(moved, saved, config):
    """Those that are there, of those that stay for good."""
    _, pack, state = saved
    train = dataclasses.replace(config.train, steps=60, keep_checkpoints=(10, 30, 50, 60))
    config = dataclasses.replace(config, train=train)
    corpus, earlier = corpora.open_corpus(moved.parent.parent / "data"), jax.tree.map(lambda leaf: leaf + 1, state)
    with checkpoint.Saver(moved / "checkpoints" / "pack_0", kept=(30, 50, 60)) as saver:
        for step in (30, 40, 50, 60):
            values = loop.items_of(earlier if step == 30 else state)
            saver.save(step, values, loop.describe(pack, config, corpus.fingerprint))
    newest = restore.restore(moved)
    assert newest.step == 60 and newest.kept == [30, 50]
    then = newest.at(30)
    assert then.step == 30 and then.corpus is newest.corpus
    for ours, theirs in zip(jax.tree.leaves(then.params), jax.tree.leaves(earlier.params), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    path = max((moved / "checkpoints/pack_0/50/params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="without its folder it is left out"):
        newest.at(50)


def test_the_restored_loss_is_the_trained_one(moved, saved, config):
    workdir, pack, state = saved
    corpus = corpora.open_corpus(workdir.data)
    restored = restore.restore(moved)
    for split in ("tune", "test"):
        before = documents.document_losses(pack.model, pack.replica_map, state.params, corpus, split, config.eval)
        after = documents.document_losses(
            pack.model, pack.replica_map, restored.params, restored.corpus, split, config.eval
        )
        assert before.shape == (2, corpus.splits[split][1] - corpus.splits[split][0])
        assert before.tobytes() == after.tobytes()
    assert not np.array_equal(before[0], before[1]), "two seeds, two models"


def test_another_corpus_is_refused(moved, config, tmp_path):
    shutil.rmtree(moved.parents[1] / "data")
    corpora.write_corpus(dataclasses.replace(config.data, test_fraction=0.4), moved.parents[1] / "data")
    with pytest.raises(InputError, match="was trained on data .* and the workdir holds"):
        restore.restore(moved)


def test_no_data(moved):
    shutil.rmtree(moved.parents[1] / "data")
    with pytest.raises(InputError, match="corpus.json is missing"):
        restore.restore(moved)


def test_no_checkpoint(moved):
    with pytest.raises(checkpoint.CorruptCheckpoint, match="pack_1 holds no checkpoint"):
        restore.restore(moved, pack=1)
    shutil.rmtree(moved / "checkpoints" / "pack_0" / "20")
    with pytest.raises(checkpoint.CorruptCheckpoint, match="pack_0 holds no checkpoint"):
        restore.restore(moved)


def test_a_flipped_byte(moved):
    path = max((moved / "checkpoints" / "pack_0" / "20" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(checkpoint.CorruptCheckpoint):
        restore.restore(moved)
