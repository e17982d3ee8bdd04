"""What a study of doses may be, and the stages that each of its cells goes through by itself."""

import dataclasses

import pytest

from configs import relations, relations_full, relations_sanity
from train import grid
from train.config import InputError, freeze
from train.data import sources
from train.grid import Cell, Replica
from train.hosts.preemption import Notice
from train.run import packs, starts
from train.study import launch, stages
from train.study.launch import Study
from train.workdir import Workdir


def frozen(**changes):
    config = relations.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.learning_rates = (16,), (2,), (0.003, 0.01)
    config.grid.init_seeds = (0, 1)
    config.train.steps, config.train.batch_size, config.train.warmup_steps = 60, 4, 5
    config.dose.look_every, config.dose.documents, config.dose.relations = 20, 8, (2,)
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return freeze(config.to_dict())


@pytest.mark.parametrize("config", [
    relations.get_config(),
    *map(relations_full.get_config, (*relations_full.CELLS, relations_full.MLP_FIRST)),
    *map(relations_sanity.get_config, relations_sanity.FAMILIES),
])  # fmt: skip
def test_our_studies_of_doses_pass_their_check(config):
    study = freeze(config.to_dict())
    stages.check(study, grid.cells_of(study, sources.vocab_size(study.data)))


def test_fewer_bits_are_named_by_the_offsets():
    config = frozen(data__offsets=(1, 2), data__relations="2", dose__relations=(1, 2))
    stages.check(config, ())
    with pytest.raises(InputError, match="data.relations='1' is not read .* leave it at 2, the bits of an answer"):
        stages.check(frozen(data__offsets=(1, 2), data__relations="1"), ())


def test_a_language_seed_is_not_read():
    with pytest.raises(InputError, match="data.language_seed=3 is not read where dose.relations=2: .*init_seeds"):
        stages.check(frozen(data__language_seed=3), ())


def test_a_start_that_a_cell_cannot_have_is_a_sentence():
    config = frozen(dose__starts=("mlp_first",))
    with pytest.raises(InputError, match="dose.starts=mlp_first cannot be: .*this model has 1 layer"):
        stages.check(config, grid.cells_of(config, sources.vocab_size(config.data)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__source": "docs"}, "data.source=relations"),
        ({"data__seq_len": 32}, "data.seq_len=64, a document"),
        ({"grid__tuning_seeds": (), "grid__extensions": 0}, "grid.tuning_seeds, or a single rate"),
        ({"train__steps": 50}, "a multiple of dose.look_every=20"),
        ({"dose__relations": (1, 1)}, "names a dose twice"),
        ({"dose__relations": (0, 1)}, "must be above 0"),
    ],
)
def test_what_such_a_study_cannot_be(changes, said):
    with pytest.raises(InputError, match=said):
        frozen(**changes)


class Silent:
    def __getattr__(self, name):
        return lambda *_: None


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """(a function that trains all cells of a config, what was trained: cell, its runs' rates, seeds and starts, how it
    ends), where a run takes 20 steps for each seed at the rate .03 and 40 at others."""
    done = []

    def train_packs(study: Study, cell: Cell, end: str) -> None:
        folder = study.workdir.cell(cell.name)
        before = {Replica(**replica) for record in folder.packs() for replica in record["replicas"]}
        added = tuple(replica for replica in cell.replicas if replica not in before)
        done.append((cell.name, {(run.learning_rate, run.init_seed, run.start) for run in added}, end))
        for start in dict.fromkeys(run.start for run in added):
            mine = tuple(run for run in added if run.start == start)
            pack = packs.Pack(len(folder.packs()), cell.model, mine, "scan", {}, dose=cell.dose)
            outcomes = [{"steps": 20 if run.learning_rate == 0.03 else 40, "why": "", "loss": 0.04} for run in mine]
            trained = {"outcomes": outcomes, "diverged_at": [-1] * len(mine)}
            folder.write_packs([*folder.packs(), {**pack.as_json(), "trained": trained}])
            with open(folder.looks, "a") as file:
                for run in mine:
                    loss = 1 / run.learning_rate  # so that the largest rate is best where all take as long
                    file.write(f'{{"pack": 0, "step": 20, "replica": "{run.name}", "loss": {loss}}}\n')
        folder.write_status("done" if end == "done" else end)

    monkeypatch.setattr(launch, "train_packs", train_packs)

    def train(config) -> list:
        study = Study(config, Workdir(tmp_path), None, {"train_alone": stages.train_alone}, Notice(), Silent())
        cells = grid.cells_of(config, sources.vocab_size(config.data))
        done.clear()
        stages.go_through(study, cells, cells)
        return list(done)

    return train


def test_a_cell_is_tuned_then_extended_then_judged(trained):
    tune, fresh = (100, 101), (0, 1)
    config = frozen(grid__learning_rates=(0.001, 0.003, 0.01), dose__relations=(1, 2), dose__starts=("no_attention",))
    expected = [
        ({(rate, seed, "drawn") for rate in (0.001, 0.003, 0.01) for seed in tune}, "tuned"),
        ({(0.03, seed, "drawn") for seed in tune}, "tuned"),
        ({(0.03, seed, start) for seed in fresh for start in ("drawn", "no_attention")}, "done"),
    ]
    assert trained(config) == [(f"d016_h002_r{dose}", *stage) for dose in (1, 2) for stage in expected]
    assert trained(config) == [], "a study that is done has nothing left to train"


def test_a_single_rate_is_not_tuned(trained):
    config = frozen(grid__tuning_seeds=(), grid__extensions=0, grid__learning_rates=(0.01,))
    assert trained(config) == [("d016_h002_r2", {(0.01, 0, "drawn"), (0.01, 1, "drawn")}, "done")]


def test_weights_by_hand_have_a_rate_of_their_own_and_one_head(trained):
    config = frozen(grid__d_model=(64,), grid__num_heads=(1, 8), dose__starts=("hand_built",), dose__relations=(6,))
    found = {name: runs for name, runs, end in trained(config) if end == "done"}
    assert {start for _, _, start in found["d064_h008_r6"]} == {"drawn"}
    by_hand = {(rate, seed) for rate, seed, start in found["d064_h001_r6"] if start == starts.HAND_BUILT}
    assert by_hand == {(0.003 / 10, 0), (0.003 / 10, 1)}, "a tenth of the smallest that was tried"


def test_a_fault_of_one_cell_leaves_the_others_alone(trained, monkeypatch, tmp_path):
    real = launch.train_packs

    def faulty(study, cell, end):
        if cell.dose == 1:
            raise RuntimeError("a reason")
        real(study, cell, end)

    monkeypatch.setattr(launch, "train_packs", faulty)
    config = dataclasses.replace(frozen(dose__relations=(1, 2)))
    assert {name for name, _, _ in trained(config)} == {"d016_h002_r2"}
    assert Workdir(tmp_path).cell("d016_h002_r1").status() == {"state": "failed", "reason": "a reason"}
    monkeypatch.setattr(launch, "train_packs", real)
    assert {name for name, _, _ in trained(config)} == {"d016_h002_r1"}, "the next start tries it again"
