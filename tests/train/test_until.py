"""Runs that train until they are there: the looks decide, a stop changes nothing, and rates give up in time."""

import json

import numpy as np
import pytest
from train.study.until import Outcome, Program, Runs

from configs import relations, relations_full, relations_sanity
from train import grid
from train.config import InputError, freeze
from train.data import sources
from train.files import write_json
from train.grid import Replica
from train.hosts.preemption import Notice, Preempted
from train.losses import answers
from train.run import metrics, packs
from train.study import dose_study, until
from train.workdir import CellFolder


def small(**changes):
    config = relations.get_config()
    config.grid.d_model, config.grid.num_heads, config.grid.learning_rates = (16,), (2,), (0.003, 0.01)
    config.grid.init_seeds = (0, 1)
    config.train.steps, config.train.batch_size, config.train.warmup_steps = 60, 4, 5
    config.dose.look_every, config.dose.documents, config.dose.relations = 20, 8, (2,)
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    return config


def frozen(**changes):
    return freeze(small(**changes).to_dict())


class Silent:
    def __init__(self, stop=None, after=None):
        self.stop, self.after, self.steps_done = stop, after, []

    def say(self, text):
        pass

    def steps(self, step, losses):
        self.steps_done.append(step)
        if self.after == step:
            self.stop._asked.set()


@pytest.fixture(scope="module")
def program():
    config = frozen()
    (cell,) = grid.cells_of(config, sources.vocab_size(config.data))
    model, _ = packs.resolve(cell, config)
    return Program(model, config, rows=4)


REPLICAS = tuple(Replica(0.01, seed, seed) for seed in (3, 4, 5))


def runs_of(program, replicas=REPLICAS, **more) -> Runs:
    return Runs(program.model, 2, "test", replicas, **more)


def told(losses):
    """A look that says `losses` (replica's seed -> step -> loss), by the order of the seeds' texts."""
    state = {"step": 0}

    def look(model, params, bits, texts):
        state["step"] += 20
        names = [seed for seed, text in SEEN.items() for one in texts if one is not None and _same(one, text)]
        found = [losses[seed].get(state["step"], 0.6) for seed in names]
        return np.array(found), [np.array([value, value]) for value in found]

    return look


SEEN = {}


def _same(one, other):
    return np.array_equal(one.tokens, other.tokens)


@pytest.fixture(autouse=True, scope="module")
def texts():
    for seed in (3, 4, 5):
        SEEN[seed] = until.looked_at(frozen(), 2, "test", seed)


def test_a_run_ends_at_its_first_look_below_and_the_rest_go_on(program, tmp_path):
    losses = {3: {20: 0.5, 40: 0.04}, 4: {20: 0.03}, 5: {}}
    found = until.train(program, runs_of(program), tmp_path, frozen(), told(losses), Notice(), Silent())
    assert [(run.steps, run.why, run.loss) for run in found] == [
        (40, "reached", 0.04),
        (20, "reached", 0.03),
        (60, "capped", 0.6),
    ]
    lines = metrics.read(tmp_path / "looks.jsonl")
    assert [(line["step"], line["replica"]) for line in lines] == [
        (20, "lr0.01_i3_d3"), (20, "lr0.01_i4_d4"), (20, "lr0.01_i5_d5"), (40, "lr0.01_i3_d3"), (40, "lr0.01_i5_d5"),
        (60, "lr0.01_i5_d5"),
    ]  # fmt: skip
    assert set(lines[0]["relations"]) == set(until.spoken(frozen().data, 2, 3).relations)


def test_all_there_ends_at_once(program, tmp_path):
    progress = Silent()
    losses = {seed: {20: 0.05} for seed in (3, 4, 5)}
    found = until.train(program, runs_of(program), tmp_path, frozen(), told(losses), Notice(), progress)
    assert [run.steps for run in found] == [20] * 3 and progress.steps_done == [20]


def test_a_run_that_diverges_counts_as_capped_at_chance(program, tmp_path):
    losses = {3: {20: float("nan")}, 4: {20: 0.03}, 5: {20: 0.03}}
    found = until.train(program, runs_of(program), tmp_path, frozen(), told(losses), Notice(), Silent())
    assert found[0] == Outcome(REPLICAS[0], 60, "diverged", np.log(2))


@pytest.mark.slow
def test_stopped_and_continued_is_as_undisturbed(program, tmp_path):
    """The looks, bit for bit, whichever look the stop comes after, and whatever a crash left in looks.jsonl."""
    config = frozen()
    until.train(program, runs_of(program), tmp_path / "quiet", config, answers.excess_of, Notice(), Silent())
    wanted = (tmp_path / "quiet" / "looks.jsonl").read_text()
    assert len(wanted.splitlines()) == 9
    for after in (20, 40):
        folder, stop = tmp_path / str(after), Notice()
        with pytest.raises(Preempted):
            until.train(program, runs_of(program), folder, config, answers.excess_of, stop, Silent(stop, after))
        with open(folder / "looks.jsonl", "a") as file:
            file.write(json.dumps({"step": after + 20, "replica": "x", "loss": 9.0, "relations": {}}) + '\n{"step"')
        until.train(program, runs_of(program), folder, config, answers.excess_of, Notice(), Silent())
        assert (folder / "looks.jsonl").read_text() == wanted


@pytest.mark.slow
def test_a_run_has_the_same_looks_whatever_trains_beside_it(program, tmp_path):
    config = frozen()
    until.train(program, runs_of(program), tmp_path / "three", config, answers.excess_of, Notice(), Silent())
    until.train(
        program, runs_of(program, REPLICAS[1:2]), tmp_path / "one", config, answers.excess_of, Notice(), Silent()
    )
    three, one = (metrics.read(tmp_path / name / "looks.jsonl") for name in ("three", "one"))
    assert [line for line in three if line["replica"] == one[0]["replica"]] == one


def test_a_rate_gives_up_once_another_is_ahead():
    config, rates = frozen(train__steps=2_000), (0.001, 0.01)
    replicas = grid.replicas(rates, ((3, 3), (4, 4)))
    runs = Runs(None, 2, "tune", replicas, compete=True)
    looks = []

    def look(step, **losses):
        looks.extend({"step": step, "replica": replica.name, "loss": losses[f"r{index}"], "relations": {}}
                     for index, replica in enumerate(replicas) if f"r{index}" in losses)  # fmt: skip

    look(100, r0=0.6, r1=0.6, r2=0.04, r3=0.6)
    assert list(until._ended(runs, looks, config)) == [2], "the rate's median is not known yet"
    look(200, r0=0.6, r1=0.6, r3=0.04)
    assert until._ended(runs, looks, config).keys() == {0, 1, 2, 3}, "150 is below what the others can still have"
    assert {run.why for run in until._ended(runs, looks, config).values()} == {"reached", "hopeless"}
    alone = Runs(None, 2, "tune", replicas, compete=False)
    assert until._ended(alone, looks, config).keys() == {2, 3}
    # A rate that extends the others competes with what they needed.
    added = Runs(None, 2, "tune", replicas[:2], compete=True, known=((0.01, (100, 200)),))
    early = [line for line in looks if line["step"] == 100 and line["replica"] in {run.name for run in replicas[:2]}]
    assert not until._ended(added, early, config)
    late = [{**line, "step": 200} for line in early]
    assert {run.why for run in until._ended(added, early + late, config).values()} == {"hopeless"}


def test_training_reads_no_document_that_is_looked_at():
    config = frozen()
    spoken = until.spoken(config.data, 2, 3)
    read = until._documents(spoken, 3, 2 * config.dose.documents, 400)
    for split in ("tune", "test"):
        held = until.looked_at(config, 2, split, 3).tokens
        assert not {bytes(one) for one in held} & {bytes(one) for one in read}
    assert not np.array_equal(SEEN[3].tokens, until.looked_at(config, 2, "tune", 3).tokens)


def test_every_seed_has_its_own_row():
    config = frozen()
    names = [until.spoken(config.data, 2, seed).relations for seed in range(6)]
    assert len(set(names)) == 6 and sorted(name for each in names for name in each) == sorted(
        2 * "P1 P2 P3 P5 P7 P11".split()
    )


def test_the_chosen_rate_is_that_of_fewest_steps_then_of_lower_loss(tmp_path):
    folder = CellFolder(tmp_path)

    def outcome(rate, seed, steps):
        return {"replica": {"learning_rate": rate, "init_seed": seed, "data_seed": seed}, "steps": steps,
                "why": "capped", "loss": 0.3}  # fmt: skip

    def written(stage, losses):
        lines = [{"step": step, "replica": Replica(rate, seed, seed).name, "loss": loss, "relations": {}}
                 for (rate, seed), by_step in losses.items() for step, loss in by_step.items()]  # fmt: skip
        (tmp_path / stage).mkdir(exist_ok=True)
        (tmp_path / stage / "looks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    tune = [outcome(rate, seed, 60) for rate in (0.001, 0.01) for seed in (1, 2)]
    write_json(tmp_path / "runs.json", {"tune": tune})
    written(
        "tune",
        {(rate, seed): {20: loss, 40: 1 - loss} for rate, loss in ((0.001, 0.3), (0.01, 0.4)) for seed in (1, 2)},
    )
    assert dose_study.chosen(folder) == 0.01, "both capped: the lower loss at the last common look, .6 against .7"
    write_json(tmp_path / "runs.json", {"tune": tune, "extend": [outcome(0.03, seed, 40) for seed in (1, 2)]})
    written("extend", {(0.03, seed): {20: 0.9} for seed in (1, 2)})
    assert dose_study.chosen(folder) == 0.03


def test_a_dose_of_kinds():
    """data.relations names the kinds; a seed's row of a square says which of them are on."""
    config = frozen(data__relations="A,B,C,D,E,F,G")
    alone = [until.spoken(config.data, 1, seed).relations for seed in range(7)]
    assert sorted(alone) == [(kind,) for kind in "ABCDEFG"] and alone == [
        until.spoken(config.data, 1, seed + 7).relations for seed in range(7)
    ]
    three = [until.spoken(config.data, 3, seed).relations for seed in range(7)]
    assert all(len(set(each)) == 3 for each in three) and sorted(sum(three, ())) == sorted(3 * "ABCDEFG")
    for which, dose in (("A,C", 3), ("6,A,C", 1)):
        with pytest.raises(InputError, match=f"dose.relations asks for {dose} of data.relations='{which}'"):
            until.spoken(frozen(data__relations=which).data, dose, 0)


@pytest.mark.parametrize("config", [
    relations.get_config(),
    *map(relations_full.get_config, (*relations_full.CELLS, relations_full.MLP_FIRST)),
    *map(relations_sanity.get_config, relations_sanity.FAMILIES),
])  # fmt: skip
def test_our_studies_of_doses_pass_their_check(config):
    study = freeze(config.to_dict())
    dose_study.check(study, grid.cells_of(study, sources.vocab_size(study.data)))


def test_fewer_bits_are_named_by_the_offsets():
    config = frozen(data__offsets=(1, 2), data__relations="2", dose__relations=(1, 2))
    dose_study.check(config, ())
    with pytest.raises(InputError, match="data.relations='1' is not read .* leave it at 2, the bits of an answer"):
        dose_study.check(frozen(data__offsets=(1, 2), data__relations="1"), ())


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
