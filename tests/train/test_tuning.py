"""Which rate a cell keeps, and when the rates of all extend."""

import dataclasses
import json
import math

import numpy as np
import pytest

from configs import relations, smoke
from train import grid
from train.config import freeze
from train.data import corpora, sources
from train.run import packs
from train.study import tuning
from train.workdir import Workdir

BEST = {"d016_h001": 0.01, "d016_h016": 0.02}  # where the loss of a cell is lowest


@pytest.fixture
def study(tmp_path):
    """(config, workdir, cells, corpus) of two cells; nothing is trained."""
    text = tmp_path / "text.txt"
    text.write_text("".join(np.random.default_rng(0).choice(list("abcd\n"), 60_000)))
    config = smoke.get_config()
    config.grid.num_heads, config.grid.tuning_seeds, config.grid.extensions = (1, 16), (7, 8), 2
    config.grid.learning_rates, config.data.source = (0.02, 0.01), f"file:{text}"
    config = freeze(config.to_dict())
    corpus = corpora.write_corpus(config.data, tmp_path / "run" / "data")
    return config, Workdir(tmp_path / "run"), grid.cells_of(config, corpora.VOCAB_SIZE), corpus


def read(study) -> tuning.Tuning:
    config, workdir, cells, corpus = study
    return tuning.read(config, workdir, cells, tuning.score_of(config, corpus))


def test_of_several_scales_the_best_goes_on(study):
    config, workdir, _, corpus = study
    wider = dataclasses.replace(config, grid=dataclasses.replace(config.grid, logit_scales=("sqrt", "learned")))
    cells = grid.cells_of(wider, corpora.VOCAB_SIZE)
    wider_study = (wider, workdir, cells, corpus)
    for name, best in (("d016_h001", 0.01), ("d016_h001_learned", 0.014), ("d016_h016", 0.014)):
        try_rates(wider_study, name, (0.01, 0.02), best=best)
    tuned = read(wider_study)
    assert tuning.passed_over(tuned, cells) == {"d016_h001_learned": "d016_h001"}, "the last cell is not tried yet"
    try_rates(wider_study, "d016_h016_learned", (0.01, 0.02), best=0.02)
    tuned = read(wider_study)
    assert tuning.passed_over(tuned, cells) == {"d016_h001_learned": "d016_h001", "d016_h016": "d016_h016_learned"}


def try_rates(study, name, rates, best=None, diverged=(), seeds=(7, 8)):
    """Marks the runs of a cell as trained, their tune losses 1 + (octaves from `best`)^2 on average, +- .1 by seed."""
    _, workdir, cells, corpus = study
    (cell,) = [cell for cell in cells if cell.name == name]
    folder = workdir.cell(name)
    first, last = corpus.splits["tune"]
    tokens = corpus.num_bytes[first:last].sum()
    replicas = grid.replicas(rates, [(seed, seed) for seed in seeds])
    losses = [1 + math.log2(r.learning_rate / (best or BEST[name])) ** 2 + 0.2 * (r.init_seed - 7.5) for r in replicas]
    trained = {
        "tune_losses": [float(tokens * loss) for loss in losses],
        "diverged_at": [3 if r.learning_rate in diverged else -1 for r in replicas],
    }
    pack = packs.Pack(len(folder.packs()), cell.model, replicas, "scan", {})
    folder.write_packs([*folder.packs(), {**pack.as_json(), "trained": trained}])
    folder.write_status("tuned")


def test_nothing_is_chosen_before_every_cell_has_tried_every_rate(study):
    found = read(study)
    assert found.rates == (0.01, 0.02) and found.lacking == ("d016_h001", "d016_h016") and not found.chosen
    try_rates(study, "d016_h001", (0.01, 0.02))
    found = read(study)
    assert found.rates == (0.01, 0.02) and found.lacking == ("d016_h016",)
    assert found.scores["d016_h001"] == pytest.approx({0.01: 1, 0.02: 2})
    try_rates(study, "d016_h016", (0.01, 0.02), seeds=(7,))
    assert read(study).lacking == ("d016_h016",), "one of two seeds is missing"


def test_a_best_rate_at_an_edge_extends_the_rates_of_all(study):
    for name in BEST:
        try_rates(study, name, (0.01, 0.02))
    found = read(study)
    assert found.rates == (0.005, 0.01, 0.02, 0.04) and set(found.lacking) == set(BEST)
    for name in BEST:
        try_rates(study, name, (0.005, 0.04))
    found = read(study)
    assert found.rates == (0.005, 0.01, 0.02, 0.04) and not found.lacking
    assert found.chosen == BEST and {found.edge(name) for name in BEST} == {""}


def test_the_extension_is_bounded(study):
    for name in BEST:
        try_rates(study, name, (0.0025, 0.005, 0.01, 0.02), best=1e-5)
    found = read(study)
    assert found.rates == (0.0025, 0.005, 0.01, 0.02) and not found.lacking
    assert found.chosen == dict.fromkeys(BEST, 0.0025) and found.edge("d016_h001") == "lowest"


def test_a_failed_cell_does_not_hold_up_the_others(study):
    try_rates(study, "d016_h001", (0.005, 0.01, 0.02))
    study[1].cell("d016_h016").write_status("out_of_memory", "too large")
    found = read(study)
    assert found.lacking == ("d016_h016",) and found.rates == (0.005, 0.01, 0.02)
    assert found.chosen == {"d016_h001": 0.01}


def test_a_rate_at_which_all_diverged_is_chosen_only_where_no_other_is(study):
    unigram = corpora.unigram_entropy(study[3])
    try_rates(study, "d016_h001", (0.01, 0.02), best=0.02 * 2**10, diverged=(0.01,))
    try_rates(study, "d016_h016", (0.01, 0.02), diverged=(0.01, 0.02))
    found = read(study)
    assert found.scores["d016_h001"][0.01] == pytest.approx(unigram) and unigram < found.scores["d016_h001"][0.02]
    assert found.chosen["d016_h001"] == 0.02
    assert found.chosen["d016_h016"] == 0.01, "the smaller of two that tie"


def test_seeds_that_are_judged_choose_nothing(study):
    try_rates(study, "d016_h001", (0.005, 0.01, 0.02, 0.04))
    try_rates(study, "d016_h001", (0.02,), best=0.02, seeds=(0, 1))
    assert read(study).chosen["d016_h001"] == 0.01


@pytest.fixture
def study_of_doses(tmp_path):
    """(config, workdir, cells) of one cell at one dose; nothing is trained."""
    config = relations.get_config()
    config.grid.num_heads, config.dose.relations = (1,), (4,)
    config = freeze(config.to_dict())
    return config, Workdir(tmp_path / "run"), grid.cells_of(config, sources.vocab_size(config.data))


def run_rates(study, steps, losses=None, seeds=(100, 101), start=grid.DRAWN):
    """Marks a pack as trained in which the runs of each rate took `steps`, with looks from rate -> step -> loss."""
    config, workdir, (cell,) = study
    folder = workdir.cell(cell.name)
    index, rates = len(folder.packs()), tuple(steps)
    replicas = grid.replicas(rates, [(seed, seed) for seed in seeds], start)
    taken = [each for rate in rates for each in steps[rate]]
    outcomes = [{"steps": each, "why": "capped", "loss": 0.3} for each in taken]
    pack = packs.Pack(index, cell.model, replicas, "scan", {}, dose=cell.dose)
    trained = {"outcomes": outcomes, "diverged_at": [-1] * len(replicas)}
    folder.write_packs([*folder.packs(), {**pack.as_json(), "trained": trained}])
    looks = losses or {rate: {50: 0.6} for rate in rates}
    with open(folder.looks, "a") as file:
        for replica in replicas:
            for step, loss in looks[replica.learning_rate].items():
                line = {"pack": index, "step": step, "replica": replica.name, "loss": loss, "relations": {}}
                file.write(json.dumps(line) + "\n")
    folder.write_status("tuned")


def read_doses(study) -> tuning.Tuning:
    config, workdir, cells = study
    return tuning.read(config, workdir, cells, tuning.score_of(config, None))


def chosen(study) -> float:
    found = read_doses(study)
    return found.chosen[study[2][0].name]


def test_the_chosen_rate_is_that_of_the_lowest_median_steps(study_of_doses):
    run_rates(study_of_doses, {0.001: [900, 1_100], 0.003: [500, 900], 0.01: [800, 800]})
    found = read_doses(study_of_doses)
    assert chosen(study_of_doses) == 0.003 and not found.lacking and found.rates == (0.001, 0.003, 0.01)
    scores = found.scores["d064_h001_r4"]
    assert {rate: steps for rate, (steps, _) in scores.items()} == {0.001: 1_000, 0.003: 700, 0.01: 800}


def test_of_rates_that_tie_the_lower_loss_at_the_last_common_look_is_chosen(study_of_doses):
    capped = dict.fromkeys((0.001, 0.003, 0.01), [60, 60])
    run_rates(study_of_doses, capped, {
        0.001: {20: 0.1, 40: 0.7, 60: 0.1}, 0.003: {20: 0.4, 40: 0.6}, 0.01: {20: 0.3, 40: 0.8, 60: 0.2},
    })  # fmt: skip
    assert chosen(study_of_doses) == 0.003, "of 40 steps, the last that all had"
    scores = read_doses(study_of_doses).scores["d064_h001_r4"]
    assert scores == {rate: (60, pytest.approx(loss)) for rate, loss in ((0.001, 0.7), (0.003, 0.6), (0.01, 0.8))}


def test_of_rates_that_tie_in_all_the_smaller_is_chosen(study_of_doses):
    run_rates(study_of_doses, {0.003: [800, 800], 0.001: [900, 900], 0.01: [700, 900]})
    assert chosen(study_of_doses) == 0.003
    assert tuning.best_rate({0.003: (800, 0.1), 0.001: (800, 0.1)}) == 0.001


def test_a_run_that_diverged_has_no_loss_to_win_by(study_of_doses):
    runs = dict.fromkeys((0.001, 0.003, 0.01), [60, 60])
    run_rates(study_of_doses, runs, {0.001: {20: None}, 0.003: {20: 0.9}, 0.01: {20: None}})
    assert chosen(study_of_doses) == 0.003


@pytest.mark.parametrize(("best", "added"), [(0.001, 0.0003), (0.003, None), (0.01, 0.03)])
def test_the_ladder_of_rates_goes_on_beyond_the_edge_that_is_best(best, added, study_of_doses):
    run_rates(study_of_doses, {rate: [400 if rate == best else 800] * 2 for rate in (0.001, 0.003, 0.01)})
    found = read_doses(study_of_doses)
    assert {*found.rates} - {0.001, 0.003, 0.01} == ({added} if added else set())
    assert bool(found.lacking) == bool(added)
    if added:
        run_rates(study_of_doses, {added: [300, 300]}, {added: {50: 0.9}})
        found = read_doses(study_of_doses)
        assert chosen(study_of_doses) == added and not found.lacking, "and no further: grid.extensions=1"


def test_the_ladder():
    assert tuning._extended((0.003, 0.01, 0.03), "lowest")[0] == pytest.approx(0.001)
    assert tuning._extended((0.0003, 0.001, 0.003, 0.01), "lowest")[0] == pytest.approx(0.0001)
    assert tuning._extended((0.001, 0.003, 0.01, 0.03), "highest")[-1] == pytest.approx(0.1)
    assert tuning._extended((0.01, 0.02), "highest") == (0.01, 0.02, 0.04)
    assert tuning._extended((0.01,), "lowest") == (0.005, 0.01)


def test_runs_of_fresh_seeds_and_of_other_starts_choose_nothing(study_of_doses):
    run_rates(study_of_doses, {0.001: [900, 900], 0.003: [500, 500], 0.01: [800, 800]})
    run_rates(study_of_doses, {0.003: [2_000] * 2}, seeds=(0, 1))
    run_rates(study_of_doses, {0.01: [50] * 2}, start="mlp_first")
    assert chosen(study_of_doses) == 0.003


def test_a_cell_of_a_dose_is_lacking_until_all_its_tuning_runs_are_there(study_of_doses):
    assert read_doses(study_of_doses).lacking == ("d064_h001_r4",)
    run_rates(study_of_doses, {0.001: [900, 900], 0.003: [500, 500]})
    assert read_doses(study_of_doses).lacking == ("d064_h001_r4",)
    run_rates(study_of_doses, {0.01: [800]}, seeds=(100,))
    assert read_doses(study_of_doses).lacking == ("d064_h001_r4",), "one of two seeds is missing"
    run_rates(study_of_doses, {0.01: [800]}, seeds=(101,))
    assert not read_doses(study_of_doses).lacking
