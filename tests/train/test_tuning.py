"""Which rate a cell keeps, and when the rates of all extend."""

import dataclasses
import math

import numpy as np
import pytest

from configs import smoke
from train import grid
from train.config import freeze
from train.data import corpora
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
