"""Checkpoints come back bit for bit, or say that they do not."""

import errno
import json
import shutil
import threading
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.hosts.preemption import Preempted
from train.run import checkpoint

DESCRIPTION = {"config": {"steps": 3, "rates": [0.01, 1e-9]}, "names": ["a", "b"], "nothing": None}


def items(seed: int) -> dict:
    draw = np.random.default_rng(seed)
    weights = {"w": draw.normal(size=(2, 40, 30)).astype(np.float32), "b": draw.normal(size=7).astype(np.float32)}
    return jax.tree.map(jnp.asarray, {"params": weights, "replicas": {"diverged_at": np.array([-1, 3], np.int32)}})


def abstract(values: dict) -> dict:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), values)


def equal(ours: dict, theirs: dict) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))


@pytest.fixture
def saved(tmp_path):
    """Steps 1, 2 and 3 were saved, the last two are kept."""
    with checkpoint.Saver(tmp_path / "pack_0") as saver:
        for step in (1, 2, 3):
            saver.save(step, items(step), DESCRIPTION)
    return tmp_path / "pack_0"


def test_the_newest_two_are_kept_as_they_were(saved):
    assert checkpoint.steps_in(saved) == [3, 2]
    for step in (2, 3):
        assert equal(checkpoint.restore(saved, step, abstract(items(0))), items(step))
        assert checkpoint.describe(saved, step) == DESCRIPTION
    step, restored = checkpoint.restore_newest(saved, abstract(items(0)), say=pytest.fail)
    assert step == 3 and equal(restored, items(3))


def test_chosen_steps_are_kept_beside_the_newest_two(tmp_path):
    """Whoever saves later: another saver that is asked for them goes on with them."""
    for steps in ((2, 3, 5, 7), (8, 9, 11)):
        with checkpoint.Saver(tmp_path / "pack_0", kept=(2, 5, 9)) as saver:
            for step in steps:
                saver.save(step, items(step), DESCRIPTION)
    assert checkpoint.steps_in(tmp_path / "pack_0") == [11, 9, 5, 2]
    for step in (2, 5):
        assert equal(checkpoint.restore(tmp_path / "pack_0", step, abstract(items(0))), items(step))
    step, restored = checkpoint.restore_newest(tmp_path / "pack_0", abstract(items(0)), say=pytest.fail)
    assert step == 11 and equal(restored, items(11))


def test_part_of_a_checkpoint(saved):
    wanted = {"params": abstract(items(0))["params"]}
    assert equal(checkpoint.restore(saved, 3, wanted), {"params": items(3)["params"]})


def test_arrays_may_be_donated_once_save_returns(tmp_path):
    values = items(1)
    kept = jax.tree.map(np.array, values)
    with checkpoint.Saver(tmp_path / "pack_0") as saver:
        saver.save(1, values, DESCRIPTION)
        jax.tree.map(lambda leaf: leaf.delete(), values)
    assert equal(checkpoint.restore(tmp_path / "pack_0", 1, abstract(kept)), kept)


def test_a_save_keeps_nobody_waiting(tmp_path, monkeypatch):
    """Copying to the host, digests and writing happen in the saver's thread; the next save waits for them."""
    reading, digests = threading.Event(), checkpoint._digests
    monkeypatch.setattr(checkpoint, "_digests", lambda found: reading.wait(60) and digests(found))
    with checkpoint.Saver(tmp_path / "pack_0") as saver:
        saver.save(1, items(1), DESCRIPTION)
        assert checkpoint.steps_in(tmp_path / "pack_0") == []
        reading.set()
        saver.save(2, items(2), DESCRIPTION)
        assert 1 in checkpoint.steps_in(tmp_path / "pack_0")
    assert checkpoint.steps_in(tmp_path / "pack_0") == [2, 1]


@pytest.fixture
def full_disk(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "save_checkpointables", full)


def test_a_save_that_fails_is_raised_by_the_next(tmp_path, full_disk):
    with pytest.raises(OSError, match="No space left"), checkpoint.Saver(tmp_path / "pack_0") as saver:
        saver.save(1, items(1), DESCRIPTION)
        with pytest.raises(OSError, match="No space left"):
            saver.save(2, items(2), DESCRIPTION)


def test_a_save_that_fails_is_raised_though_the_wait_for_it_was_broken_off(tmp_path, full_disk):
    """By a second signal, which must not hide that the disk is full."""
    with pytest.raises(OSError, match="No space left"), checkpoint.Saver(tmp_path / "pack_0") as saver:
        saver.save(1, items(1), DESCRIPTION)
        with mock.patch.object(saver._pending, "result", side_effect=Preempted):
            saver.save(2, items(2), DESCRIPTION)


def test_nothing_saved(tmp_path):
    assert checkpoint.steps_in(tmp_path / "pack_0") == []
    assert checkpoint.restore_newest(tmp_path / "pack_0", abstract(items(0)), say=pytest.fail) is None


def flip(path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_anywhere_is_noticed_or_changes_nothing(saved, tmp_path):
    """Bookkeeping of Orbax, such as the time of the save, is in no digest; every array and the description are."""
    noticed, files = set(), [path for path in (saved / "3").rglob("*") if path.is_file() and path.stat().st_size]
    for path in files:
        for part in (3, 2, 1.25):
            flip(path, int(path.stat().st_size / part))
            try:
                assert equal(checkpoint.restore(saved, 3, abstract(items(0))), items(3))
                assert checkpoint.describe(saved, 3) == DESCRIPTION
            except checkpoint.CorruptCheckpoint:
                noticed.add(path)
            flip(path, int(path.stat().st_size / part))
    largest = max(files, key=lambda path: path.stat().st_size)
    assert largest in noticed and len(noticed) >= 3
    assert equal(checkpoint.restore(saved, 3, abstract(items(0))), items(3))


def test_a_flipped_byte_among_the_weights_is_noticed(saved):
    """At 20 places of the file that holds them; a few of its bytes are nobody's and change nothing."""
    path = max((saved / "3" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    noticed = 0
    for place in np.random.default_rng(0).integers(path.stat().st_size, size=20):
        flip(path, place)
        try:
            assert equal(checkpoint.restore(saved, 3, abstract(items(0))), items(3))
        except checkpoint.CorruptCheckpoint:
            noticed += 1
        flip(path, place)
    assert noticed >= 15


def test_the_digest_names_the_array(saved, monkeypatch):
    """Orbax notices some damage by itself; what it loads silently, the digest notices."""
    load = checkpoint.ocp.training.Checkpointer.load_checkpointables

    def changed(self, *rest):
        loaded = load(self, *rest)
        loaded["params"]["w"] = loaded["params"]["w"].at[0, 0, 0].multiply(1 + 1e-7)
        return loaded

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "load_checkpointables", changed)
    with pytest.raises(checkpoint.CorruptCheckpoint, match=r"array \['params'\]\['w'\] is not the one saved"):
        checkpoint.restore(saved, 3, abstract(items(0)))


def test_a_changed_description_is_noticed(saved):
    path = saved / "3" / "_CHECKPOINT_METADATA"
    text = path.read_text()
    changed = text.replace("1e-09", "1e-08")
    assert changed != text
    path.write_text(changed)
    json.loads(changed)
    for read in (checkpoint.describe, lambda folder, step: checkpoint.restore(folder, step, abstract(items(0)))):
        with pytest.raises(checkpoint.CorruptCheckpoint, match="description is not the one saved"):
            read(saved, 3)


def test_a_wrong_shape_lists_both_sides(saved):
    other = items(0) | {"params": {"w": jnp.zeros((2, 40, 31)), "b": jnp.zeros(7)}}
    with pytest.raises(checkpoint.CorruptCheckpoint, match=r"wanted .*\(2, 40, 31\).*; saved .*"):
        checkpoint.restore(saved, 3, abstract(other))


def test_the_newest_falls_back_and_can_be_saved_again(saved):
    path = max((saved / "3" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:10])
    said = []
    step, restored = checkpoint.restore_newest(saved, abstract(items(0)), said.append)
    assert step == 2 and equal(restored, items(2))
    assert len(said) == 1 and "/3" in said[0] and "Falling back" in said[0]
    with checkpoint.Saver(saved) as saver:
        saver.save(3, items(3), DESCRIPTION)
    assert checkpoint.steps_in(saved) == [3, 2]
    assert equal(checkpoint.restore(saved, 3, abstract(items(0))), items(3))


def test_no_memory_says_nothing_about_a_checkpoint(saved, monkeypatch):
    def exhausted(*_):
        raise ValueError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "load_checkpointables", exhausted)
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"):
        checkpoint.restore_newest(saved, abstract(items(0)), say=pytest.fail)
    assert checkpoint.steps_in(saved) == [3, 2]


def test_a_torn_save_is_no_checkpoint(saved):
    shutil.copytree(saved / "3", saved / "4.orbax-checkpoint-tmp")
    assert checkpoint.steps_in(saved) == [3, 2]
    with checkpoint.Saver(saved) as saver:
        saver.save(4, items(4), DESCRIPTION)
    assert checkpoint.steps_in(saved) == [4, 3]
    assert not (saved / "4.orbax-checkpoint-tmp").exists()
