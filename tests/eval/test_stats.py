"""Families of tests, the best set and power, against SciPy, statsmodels and simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from eval.judge import intervals, rules, stats
from eval.judge.intervals import Variances


def test_holm_and_benjamini_hochberg_on_fixed_values():
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert stats.rejected(p_values, 0.05, "holm").tolist() == [True, False, False, True]
    assert stats.rejected(p_values, 0.05, "fdr_bh").tolist() == [True, True, True, True]
    assert (scipy.stats.false_discovery_control(p_values) <= 0.05).tolist() == [True] * 4
    assert stats.rejected([], 0.05, "holm").tolist() == []


def test_dunnetts_value_is_that_of_the_multivariate_t():
    assert stats.dunnett_one_sided(1, 10**6) == pytest.approx(scipy.stats.norm.ppf(0.95), abs=2e-3)
    assert stats.dunnett_one_sided(1, 9) == pytest.approx(scipy.stats.t.ppf(0.95, 9), abs=5e-3)
    for comparisons, freedom in ((3, 6), (6, 54)):
        shape = 0.5 * (np.eye(comparisons) + 1)
        d = stats.dunnett_one_sided(comparisons, freedom)
        joint = scipy.stats.multivariate_t(np.zeros(comparisons), shape, df=freedom, seed=0)
        assert joint.cdf(np.full(comparisons, d)) == pytest.approx(0.95, abs=2e-3)


def test_the_best_set_of_a_fixed_table():
    rng = np.random.default_rng(0)
    losses = np.array([2.0, 1.9, 1.902, 1.95])[:, None] + 0.5 * rng.normal(size=10) + 0.004 * rng.normal(size=(4, 10))
    assert stats.best_set(losses).tolist() == [False, True, True, False]
    assert stats.best_set(losses[:, :1]).all() and stats.best_set(losses[:1]).all()


@pytest.mark.parametrize("seeds, ratio", [(3, 0.37), (5, 0.62), (10, 1.0)])
def test_what_n_seeds_can_show_to_be_equal(seeds, ratio):
    assert stats.largest_spread(0.01, seeds) / 0.01 == pytest.approx(ratio, abs=0.03)


def test_power_is_that_of_simulated_studies():
    rng = np.random.default_rng(0)
    for spread, seeds in ((0.4, 3), (0.9, 8), (2.0, 30)):
        values = spread * rng.normal(size=(4000, seeds))
        sums, tokens = values[:, :, None], np.ones(1)
        found = np.mean([intervals.within(intervals.these_documents, one, tokens, 1.0) for one in sums])
        assert stats.equivalence_power(spread, 1.0, seeds) == pytest.approx(found, abs=0.03)
    assert stats.equivalence_power(1, 1, 1) == stats.difference_power(1, Variances(1), 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize("documents", [30, 120])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("main, document, rest", [(2.0, 0.1, 0.1), (1.0, 1.0, 1.0), (0.3, 2.0, 1.0), (0.0, 0.3, 2.0)])
def test_power_is_that_of_the_rule(seeds, documents, main, document, rest):
    """... within 5 points, whichever varies most; the three parts as standard errors in units of .17 of the margin."""
    rng, trials = np.random.default_rng([seeds, documents]), 1500
    tokens = np.exp(0.4 * rng.normal(size=documents))
    effective = intervals.effective_documents(tokens)
    main, document = 0.17 * main * math.sqrt(seeds), 0.17 * document * math.sqrt(effective)
    rest *= 0.17 * math.sqrt(seeds * effective)
    supported = 0
    for _ in range(trials):
        table = 1 + main * rng.normal(size=(seeds, 1)) + document * rng.normal(size=documents)
        table += rest * rng.normal(size=(seeds, documents))
        supported += rules.judge(table * tokens, tokens, 1.0).verdict == "supported"
    spread = Variances(main**2 + rest**2 / effective, document**2 / effective, rest**2 / effective, documents)
    assert stats.difference_power(1.0, spread, seeds) == pytest.approx(supported / trials, abs=0.05)


def test_seeds_to_decide_are_those_of_statsmodels():
    """... but for the support that is lost where the interval ends below the margin."""
    values = np.array([0.01, 0.03, -0.01, 0.02, 0.00])
    freedom, spread = 4, np.std(values, ddof=1)
    low, high = stats.seeds_to_decide(Variances(spread**2), 5, 0.01)
    for found, share in ((low, 0.9), (high, 0.1)):
        sd = spread * math.sqrt(freedom / scipy.stats.chi2.ppf(share, freedom))
        wanted = math.ceil(TTestPower().solve_power(0.01 / sd, power=0.8, alpha=0.05))
        assert wanted <= found <= 1.1 * wanted + 1


def test_documents_alone_may_hide_the_margin():
    of = lambda documents: stats.seeds_to_decide(Variances(0.02**2, documents**2, documents=40), 3, 0.01)  # noqa: E731
    assert of(0.01) is None
    few, many = of(0.0), of(0.002)
    assert few[0] <= many[0] and few[1] < many[1]


def test_variances_are_those_of_the_table():
    """With many seeds and documents the estimates are the truth; the seeds' part is the variance of pooled values."""
    rng = np.random.default_rng(0)
    table = 0.5 * rng.normal(size=(300, 1)) + 2.0 * rng.normal(size=400) + 3.0 * rng.normal(size=(300, 400))
    found = intervals.variances(table, np.ones(400))
    assert found.of_seed == pytest.approx(np.var(table.mean(axis=1), ddof=1))
    assert found.of_seed == pytest.approx(0.5**2 + 9 / 400, rel=0.2)
    assert found.of_documents == pytest.approx(4 / 400, rel=0.2)
    assert found.of_rest == pytest.approx(9 / 400, rel=0.02) and found.documents == 400


def test_equivalence_is_that_of_statsmodels():
    values = np.array([0.01, 0.03, -0.01, 0.02, 0.00])
    p_value = DescrStatsW(values).ttost_mean(-0.03, 0.03)[0]
    assert (p_value < 0.05) == intervals.within(intervals.these_documents, values[:, None], np.ones(1), 0.03)


def test_signs_agree():
    assert stats.sign_agreement(np.array([1, 2, 3, 4, 5, 6.0])) == (6, pytest.approx(2 / 64))
    agree, p_value = stats.sign_agreement(np.array([-1, -2, -3, 1.0]))
    assert agree == 3 and p_value > 0.05
