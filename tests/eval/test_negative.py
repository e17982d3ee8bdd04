"""C8's rule in simulated studies, and its regions."""

import itertools

import numpy as np
import pandas as pd
import pytest

from eval.heads.importance import ablation
from eval.judge import over_files
from eval.judge.claims import c8_negative_heads as c8
from eval.judge.evidence import Evidence
from eval.judge.rule_m import NO, OPEN, YES
from eval.judge.single import negative
from tests.eval import planted, workdirs
from train.config import freeze
from train.data import corpora
from train.data.gold import EvalWindows

FILES, ERROR, STUDIES = 55, 0.0008, 1000  # nats a token: that of one head's effect over so many files, as measured


def study(draw, effects, files=FILES, error=ERROR):
    """(tune, test, tokens) of a model whose heads have these effects under zero ablation; under mean nearly the same,
    since files move both alike."""
    tokens = draw.lognormal(7.5, 0.5, files)
    noise = error * np.sqrt(files)

    def rises():
        shared = draw.normal(size=(1, len(effects), files))
        own = draw.normal(size=(2, len(effects), files))
        return tokens * (np.asarray(effects)[None, :, None] + noise * (0.9 * shared + 0.44 * own))

    return rises().sum(axis=-1), rises(), tokens


@pytest.mark.parametrize("heads", [4, 16, 128])
def test_a_seed_says_yes_rarely_where_no_head_hurts_and_mostly_where_one_does(heads):
    draw, studies = np.random.default_rng(heads), STUDIES if heads < 128 else 400
    at_the_margin = np.full(heads, -negative.MARGIN)  # the worst case: every head is a candidate
    said = [negative.judge(*study(draw, at_the_margin)).answer for _ in range(studies)]
    assert said.count(YES) / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    hurts = np.where(np.arange(heads) == 1, -negative.MARGIN, draw.exponential(0.1, heads))
    missed = [negative.judge(*study(draw, hurts)).answer == NO for _ in range(studies)]
    assert np.mean(missed) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    one = np.where(np.arange(heads) == 1, -0.009, draw.exponential(0.01, heads))
    found = [negative.judge(*study(draw, one)) for _ in range(studies)]
    assert np.mean([each.answer == YES and each.confirmed[1] for each in found]) >= 0.9
    harmless = draw.exponential(0.01, heads) * (np.arange(heads) % 4 > 0)
    quiet = [negative.judge(*study(draw, harmless, error=0.0005)).answer for _ in range(200)]
    assert quiet.count(NO) / 200 >= (0.7 if heads < 128 else 0.3)


def test_a_head_negative_under_zero_alone_is_not_confirmed():
    draw = np.random.default_rng(0)
    tune, test, tokens = study(draw, [-0.02, 0.01])
    assert negative.judge(tune, test, tokens).answer == YES
    test[1, 0] = abs(test[1, 0])
    assert negative.judge(tune, test, tokens).answer != YES
    tune, test, tokens = study(draw, [-0.02, 0.01])
    tune[1, 0] = 1.0  # no candidate, so test is not asked
    assert negative.judge(tune, test, tokens).answer == OPEN


def test_regions_are_disjoint_and_cover_everything():
    draw, seen = np.random.default_rng(2), set()
    for _ in range(300):
        heads, files = draw.integers(1, 6), draw.integers(2, 30)
        effects = draw.normal(0, 0.006, heads)
        tune, test, tokens = study(draw, effects, files)
        found = negative.judge(tune, test * draw.choice([0, 1e-6, 1]), tokens)
        assert found.answer in (YES, NO, OPEN)
        assert not (found.confirmed.any() and (found.low > -negative.MARGIN).all())
        seen.add(found.answer)
    assert seen == {YES, NO, OPEN}


def test_limits_over_files_hold_the_truth():
    draw = np.random.default_rng(4)
    tokens = draw.lognormal(7.5, 0.5, 40)
    found = over_files.per_token(tokens * (0.3 + 0.1 * draw.normal(size=(4000, 40))), tokens)
    assert abs(np.mean(found.high(0.05) < 0.3) - 0.05) < 0.015 and abs(np.mean(found.low(0.05) > 0.3) - 0.05) < 0.015
    assert np.array_equal(found.p_below(0.25) < 0.05, found.high(0.05) < 0.25)
    plain = draw.normal(size=40)
    one = over_files.per_token(plain, np.ones(40))
    assert np.isclose(one.mean, plain.mean()) and np.isclose(one.error, plain.std(ddof=1) / np.sqrt(40))


@pytest.mark.slow
def test_a_planted_harmful_head_is_confirmed_and_no_other():
    plant = planted.planted("harmful", num_documents=60)
    model, documents = plant.config, plant.documents
    length = (documents.lengths - 1).astype(np.int32)
    tokens, none = np.pad(documents.tokens, ((0, 0), (0, 1))).astype(np.uint16), np.zeros_like(length)
    windows = EvalWindows(tokens, length, none, length, np.arange(60, dtype=np.int32), none)
    mean, _ = ablation.means(model, plant.params, windows)
    rises = np.stack([ablation.rises(model, plant.params, windows, fill)[1] for fill in (None, mean)])
    rises = rises.reshape(2, -1, 60)
    found = negative.judge(rises[..., :30].sum(axis=-1), rises[..., 30:], length[30:])
    where = plant.head[0] * model.num_heads + plant.head[1]
    assert found.answer == YES and np.flatnonzero(found.confirmed).tolist() == [where]


def made_up(folder, hurts, seeds=range(5), files=24, kinds=("zero", "mean")):
    """A study whose head 1 of layer 0 has the effect hurts(seed) in each run of each cell."""
    claims = {"cell": "d016_h004"}
    workdir, cells = workdirs.build(
        folder, d_model=(16,), tuning_seeds=(100, 101), init_seeds=tuple(seeds), files=files, claims=claims
    )
    draw, rows = np.random.default_rng(0), []
    runs = pd.read_parquet(workdir.results / "documents.parquet")
    runs = runs[runs.init_seed < 100].drop_duplicates(["cell", "replica", "split"])
    for run in runs.itertuples():
        for head, kind, file in itertools.product(range(2), kinds, range(files)):
            rise = 1000 * ((hurts(run.init_seed) if head == 1 else 0.01) + draw.normal(0, 0.002))
            rows.append({"cell": run.cell, "replica": run.replica, "split": run.split, "layer": 0, "head": head,
                         "ablation": kind, "file": f"{file}.txt", "tokens": 1000, "rise": rise})  # fmt: skip
    pd.DataFrame(rows).to_parquet(workdir.results / "ablation.parquet")
    config = freeze(workdir.record()["config"])
    return Evidence(workdir, config, corpora.open_corpus(workdir.data), cells)


@pytest.mark.parametrize(
    "hurts, verdict",
    [(lambda seed: -0.01, "supported"), (lambda seed: 0.01, "refuted"), (lambda seed: -0.01 * (seed > 1), "undecided")],
)
def test_the_claim_reads_the_table(hurts, verdict, tmp_path):
    found = c8.judge(made_up(tmp_path, hurts))
    assert (found.verdict, found.n, found.missing) == (verdict, 5, ())
    primary = found.parts[0]
    assert primary["name"] == "d016_h004" and len(found.parts) == 5 and "in d016_h004" in found.sentence
    confirmed = [each for each in found.details["confirmed"] if each["cell"] == "d016_h004"]
    assert len(confirmed) == sum(hurts(seed) < 0 for seed in range(5))
    assert all(each["head"] == 1 and each["effect"] < -0.005 for each in confirmed)
    assert verdict != "undecided" or "To decide: " in found.sentence


def test_the_claim_says_what_is_too_few(tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    few = c8.judge(made_up(tmp_path, lambda seed: 0.01, seeds=range(3), files=7))
    assert few.verdict == "undecided" and c8.look(made_up(again, lambda seed: 0.01, seeds=range(3))) is None
    assert any("takes 5 fresh seeds or more, and d016_h004 has 3" in each for each in few.missing)
    assert any("the test split has 7, and the rule takes 20" in each for each in few.missing)
