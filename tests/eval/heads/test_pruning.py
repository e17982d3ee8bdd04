"""Curves of the measurement `pruning`: their points, what is skipped, and that a stopped one goes on where it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import smoke
from eval.heads.importance import engine, orders
from eval.measure import ablation, pruning
from eval.restore import Restored
from train import grid
from train.config import InputError, freeze
from train.data import corpora
from train.run import packs, step


def config_of(source="docs", **chosen):
    config = smoke.get_config()
    config.grid.update(num_heads=(4,), tuning_seeds=(100,), init_seeds=(0, 1))
    config.data.update(source=source, seq_len=16)
    config.pruning.update(rounds=3, windows=16, orders=("gradient", "random"), draws=2, **chosen)
    config.ablation.update(windows=16)
    return freeze(config.to_dict())


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("".join(np.random.default_rng(0).choice(list("abcdef\n"), 60_000)))
    config = config_of(f"file:{folder / 'text.txt'}")
    corpus = corpora.write_corpus(config.data, folder)
    (cell,) = grid.cells_of(config, corpus.vocab_size)
    model = dataclasses.replace(cell.model, attention="reference")
    runs = (*grid.replicas((0.01,), grid.judged_seeds(config)), *grid.replicas((0.01,), ((100, 100),)))
    pack = packs.Pack(0, model, runs, "scan", {})
    params = step.init(model, config.train, jnp.asarray([run.init_seed for run in runs], jnp.uint32)).params
    params = jax.tree.map(lambda leaf: 2 * leaf, params)
    return Restored("made_up", pack, params, np.array([-1, 7, -1]), 20, dataclasses.asdict(config), corpus), config


@pytest.mark.slow
def test_points_of_the_runs_that_are_judged(scene):
    restored, config = scene
    rows = pruning.measure(restored, "test", pruning.settings(config))
    assert set(rows.replica) == {"lr0.01_i0_d0"}, "one diverged, one only tunes"
    assert set(rows.order) == {"layer 0", "layer 1", "gradient", "random", "random 1"}
    for name, own in rows.groupby("order"):
        assert own.removed.tolist() == ([0, 4] if name.startswith("layer") else [0, 3, 5, 8])
        assert np.isclose(own.rise, own.loss - own.loss.iloc[0]).all()
    last = rows[rows.removed == 8]
    assert np.allclose(last.loss, last.loss.iloc[0], rtol=1e-6), "without any head the order does not matter"
    assert sorted(pruning.closed_heads(last.closed.iloc[0])) == list(np.ndindex(2, 4))
    effects = ablation.measure(restored, "test", ablation.settings(config))
    assert set(effects.replica) == {"lr0.01_i0_d0"} and len(effects) == 2 * 8 * effects.file.nunique()
    one = rows[(rows.order == "random") & (rows.removed == 3)].closed.iloc[0]
    assert len(pruning.closed_heads(one)) == 3


@pytest.mark.slow
def test_a_stopped_curve_goes_on_at_its_last_point(scene, tmp_path, monkeypatch):
    restored, config = scene
    restored, chosen = dataclasses.replace(restored, folder=tmp_path), pruning.settings(config)
    whole = pruning.measure(restored, "tune", chosen)
    path = tmp_path / "pruning_0.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:9]) + "\n" + lines[9][:10])
    calls = []
    losses = engine.losses
    monkeypatch.setattr(engine, "losses", lambda *args: calls.append(1) or losses(*args))
    again = pruning.measure(restored, "tune", chosen)
    assert again.equals(whole) and path.read_text().splitlines() == lines
    some, calls[:] = len(calls), []
    assert pruning.measure(restored, "tune", chosen).equals(whole) and not calls
    other = pruning.measure(restored, "tune", {**chosen, "windows": 8})
    assert len(calls) > some and len(other) == len(whole), "other settings, another curve"


def test_what_does_not_apply_is_said():
    config = config_of()
    none = dataclasses.replace(config, pruning=dataclasses.replace(config.pruning, orders=()))
    assert "config.pruning.orders is empty; name some of random" in pruning.lacks(none, None)
    with pytest.raises(InputError, match="pruning.shares=.* has a share above 1"):
        config_of(shares=(1.5,))
    with pytest.raises(InputError, match="name orders to choose among in pruning.tuning_orders"):
        config_of(recovery_steps=5)
    with pytest.raises(InputError, match="may choose greedy, which pruning.orders lacks"):
        config_of(recovery_steps=5, tuning_orders=("greedy",))
    assert set(orders.KNOWN) == set(dataclasses.fields(type(config.pruning))[0].metadata["choices"])
