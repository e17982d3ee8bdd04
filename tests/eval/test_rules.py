"""The rules of verdicts: their regions, and their error rates on simulated studies whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.judge import intervals, rules, stats
from train.study import tuning

MARGIN = 0.01
MAIN, DOCUMENT, REST = 0.008, 0.03, 0.03  # standard deviations of seed, document and their interaction


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.002, 0.02, "supported"),
        (0.002, 0.01, "supported"),
        (0.002, 0.009, "refuted"),
        (-0.05, 0.009, "refuted"),
        (-0.05, -0.02, "refuted"),
        (-0.001, 0.02, "undecided"),
        (0.0, 0.02, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_the_rule(low, high, verdict):
    assert rules.decide(low, high, MARGIN) == verdict


@given(st.floats(-0.03, 0.03), st.floats(0, 0.03))
def test_the_regions_of_a_difference_are_disjoint_and_cover_everything(low, width):
    high = low + width
    regions = {"refuted": high < MARGIN, "supported": low > 0 and high >= MARGIN}
    assert sum(regions.values()) <= 1
    regions["undecided"] = not any(regions.values())
    assert regions[rules.decide(low, high, MARGIN)]


@given(st.floats(-1, 1), st.floats(0, 1))
def test_a_shift_upwards_never_weakens_support(low, width):
    order = {"refuted": 0, "undecided": 1, "supported": 2}
    verdicts = [order[rules.decide(low + shift, low + shift + width, MARGIN)] for shift in (0, 0.5, 3)]
    assert verdicts == sorted(verdicts) and verdicts[-1] == 2


def test_few_files_are_judged_on_these_documents():
    rng = np.random.default_rng(0)
    sums = 0.05 + 0.01 * rng.normal(size=(5, 1)) + 0.01 * rng.normal(size=(5, 30))
    assert rules.judge(sums, np.ones(30), MARGIN).about == "new documents"
    few = rules.judge(sums[:, :10], np.ones(10), MARGIN)
    assert few.about == "these documents" and few.deciding == few.these and few.files == pytest.approx(10)
    assert rules.judge(sums[:1], np.ones(30), MARGIN).verdict == "undecided", "one seed has no interval"


def test_a_part_below_zero_turns_support_into_undecided():
    rng = np.random.default_rng(0)
    of = lambda effect: effect + 0.002 * rng.normal(size=(6, 40))  # noqa: E731
    pooled, each = rules.judge_pooled({"a": of(0.2), "b": of(0.1)}, np.ones(40), MARGIN)
    assert pooled.verdict == "supported" and pooled.negative == () and each["b"].verdict == "supported"
    pooled, each = rules.judge_pooled({"a": of(0.2), "b": of(-0.05)}, np.ones(40), MARGIN)
    assert pooled.verdict == "undecided" and pooled.negative == ("b",)
    assert pooled.deciding.low > MARGIN and each["a"].verdict == "supported"


def test_the_parts_verdicts_are_a_family():
    """An effect that one d_model alone supports (or refutes) does not pass when it is the best of four."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 40))
    table -= table.mean()
    of = lambda level: level + 0.05 * table  # noqa: E731
    alone = rules.judge(of(0), np.ones(40), MARGIN).deciding
    tail = (alone.high - alone.low) / 2
    for effect, sign, verdict in ((1.05 * tail, 1, "supported"), (MARGIN - 1.05 * tail, -1, "refuted")):
        (single,) = rules.judge_pooled({"a": of(effect)}, np.ones(40), MARGIN)[1].values()
        assert single.verdict == verdict == rules.judge(of(effect), np.ones(40), MARGIN).verdict
        others = {name: of(MARGIN / 2) for name in "bcd"}
        each = rules.judge_pooled({"a": of(effect), **others}, np.ones(40), MARGIN)[1]
        assert {found.verdict for found in each.values()} == {"undecided"}
        clear = of(effect + sign * 2 * tail)
        assert rules.judge_pooled({"a": clear, **others}, np.ones(40), MARGIN)[1]["a"].verdict == verdict


def crossed(rng, seeds: int, documents: int, effect: float = 0.0) -> np.ndarray:
    """Differences with a seed's, a document's and a rest part."""
    table = effect + MAIN * rng.normal(size=(seeds, 1)) + DOCUMENT * rng.normal(size=documents)
    return table + REST * rng.normal(size=(seeds, documents))


def at_most(found: float, nominal: float, trials: int) -> bool:
    return found <= nominal + 3 * math.sqrt(nominal * (1 - nominal) / trials)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0, 1, 4, 16])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_false_support_whatever_varies_most(seeds, ratio):
    """... with the seeds' variance over n `ratio` times that of the documents over m, files of unequal length."""
    rng, trials, documents = np.random.default_rng([seeds, ratio]), 4000, 40
    main = DOCUMENT * math.sqrt(ratio * seeds / documents)
    found = 0
    for _ in range(trials):
        tokens = np.exp(0.4 * rng.normal(size=documents))
        table = main * rng.normal(size=(seeds, 1)) + DOCUMENT * rng.normal(size=documents)
        sums = (table + 0.01 * rng.normal(size=(seeds, documents))) * tokens
        found += rules.judge(sums, tokens, 1e-9).verdict == "supported"
    assert at_most(found / trials, 0.025, trials), found / trials


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_false_support_and_false_equivalence(seeds):
    """`supported` where there is no difference; 'no difference that matters' where it is exactly the margin."""
    rng, trials = np.random.default_rng(seeds), 5000
    tokens = np.ones(60)
    supported = [rules.judge(crossed(rng, seeds, 60), tokens, MARGIN).verdict == "supported" for _ in range(trials)]
    assert at_most(np.mean(supported), 0.025, trials), np.mean(supported)
    of = intervals.new_documents
    margin = 0.05  # wide enough that equivalence has power
    equal = [intervals.within(of, crossed(rng, seeds, 60, margin), tokens, margin) for _ in range(trials)]
    assert at_most(np.mean(equal), 0.05, trials), np.mean(equal)
    near = [intervals.within(of, crossed(rng, seeds, 60, 0.0), tokens, margin) for _ in range(300)]
    assert np.mean(near) > 0.5, "with power"


@pytest.mark.slow
def test_holms_family():
    """Where no part differs, the chance that any is called negative is at most 5 %."""
    rng, trials, tokens = np.random.default_rng(1), 4000, np.ones(40)
    parts = lambda: {name: crossed(rng, 5, 40) for name in "abc"}  # noqa: E731
    found = [bool(rules.judge_pooled(parts(), tokens, MARGIN)[0].negative) for _ in range(trials)]
    assert at_most(np.mean(found), 0.05, trials), np.mean(found)


class Simulated:
    """A study of 1 + 4 cells of equal merit at 3 rates, 2 tuning and `fresh` seeds, documents of two splits.

    The loss of a run on a document: a seed's part, a part of cell and document that all seeds share, and noise of run
    and document.
    """

    CELLS, RATES, TUNING, DOCUMENTS = 5, 3, 2, 30

    def __init__(self, rng, fresh: int = 5):
        seeds = self.TUNING + fresh
        of_seed = rng.normal(size=(seeds, 1))
        of_run = rng.normal(size=(self.CELLS, self.RATES, seeds, 1))
        self.losses = {
            split: 0.02 * of_seed
            + 0.02 * of_run
            + 0.05 * rng.normal(size=(self.CELLS, 1, 1, self.DOCUMENTS))
            + 0.02 * rng.normal(size=(self.CELLS, self.RATES, seeds, self.DOCUMENTS))
            for split in ("tune", "test")
        }

    def judged(self, seeds: str = "fresh", split: str = "test") -> np.ndarray:
        """Loss of h = 1 less that of h*, each at its chosen rate: (seeds, documents). The rates and h* come from the
        tuning seeds on `tune`, whatever is judged."""
        tune = self.losses["tune"][:, :, : self.TUNING].mean(axis=(2, 3))
        rate = [tuning.best_rate(dict(enumerate(losses))) for losses in tune]
        best = rules.best({cell: tune[cell, rate[cell]] for cell in range(1, self.CELLS)})
        which = slice(self.TUNING, None) if seeds == "fresh" else slice(0, self.TUNING)
        at = lambda cell: self.losses[split][cell, rate[cell], which]  # noqa: E731
        return at(0) - at(best)


def optimism(seeds: str, split: str, trials: int = 3000) -> tuple[float, float]:
    """Mean of the reported difference where the truth is 0, and its standard error."""
    rng = np.random.default_rng(7)
    effects = [Simulated(rng).judged(seeds, split).mean() for _ in range(trials)]
    return float(np.mean(effects)), float(np.std(effects) / math.sqrt(trials))


def test_the_whole_path_is_not_optimistic():
    """... and would be, were the tuning seeds judged, or the tune documents."""
    mean, error = optimism("fresh", "test")
    assert abs(mean) < 2 * error
    for seeds, split in (("tuning", "test"), ("fresh", "tune")):
        mean, error = optimism(seeds, split)
        assert mean > 4 * error, (seeds, split)


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [3, 10])
def test_false_support_after_the_choice_of_h(fresh):
    rng, trials = np.random.default_rng(fresh), 4000
    tokens = np.ones(Simulated.DOCUMENTS)
    found = [rules.judge(Simulated(rng, fresh).judged(), tokens, MARGIN).verdict == "supported" for _ in range(trials)]
    assert at_most(np.mean(found), 0.025, trials), np.mean(found)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10])
def test_the_best_set_holds_the_best_and_leaves_out_the_bad(seeds):
    rng, tables, noise = np.random.default_rng(seeds), 2000, 0.01
    error = noise * math.sqrt(2 / seeds)
    means = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 10 * error])  # the hardest case for the first: four ties
    held = left_out = 0
    for _ in range(tables):
        table = means[:, None] + 0.1 * rng.normal(size=seeds) + noise * rng.normal(size=(6, seeds))
        found = stats.best_set(table)
        held += found[0]
        left_out += not found[5]
    assert held / tables >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / tables)
    assert left_out / tables >= 0.99
