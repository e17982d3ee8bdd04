"""Families of tests, the best set and power, against SciPy, statsmodels and simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from eval import intervals, stats


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
        low = [intervals.over_seeds(one + 1.0).low for one in values[:1500]]
        assert stats.difference_power(1.0, spread, 0, seeds) == pytest.approx(np.mean(np.array(low) > 0), abs=0.05)
    assert stats.equivalence_power(1, 1, 1) == stats.difference_power(1, 1, 0, 1) == 0


def test_seeds_to_decide_are_those_of_statsmodels():
    values = np.array([0.01, 0.03, -0.01, 0.02, 0.00])
    freedom, spread = 4, np.std(values, ddof=1)
    low, high = stats.seeds_to_decide(values, 0.01, 0)
    for found, share in ((low, 0.9), (high, 0.1)):
        sd = spread * math.sqrt(freedom / scipy.stats.chi2.ppf(share, freedom))
        wanted = TTestPower().solve_power(0.01 / sd, power=0.8, alpha=0.05)
        assert found == math.ceil(wanted)


def test_documents_alone_may_hide_the_margin():
    values = np.array([0.01, 0.03, -0.01])
    assert stats.seeds_to_decide(values, 0.01, of_documents=0.01**2) is None
    few, many = stats.seeds_to_decide(values, 0.01, 0), stats.seeds_to_decide(values, 0.01, 0.002**2)
    assert few[0] <= many[0] and few[1] < many[1]


def test_equivalence_is_that_of_statsmodels():
    values = np.array([0.01, 0.03, -0.01, 0.02, 0.00])
    p_value = DescrStatsW(values).ttost_mean(-0.03, 0.03)[0]
    assert (p_value < 0.05) == intervals.within(intervals.these_documents, values[:, None], np.ones(1), 0.03)


def test_signs_agree():
    assert stats.sign_agreement(np.array([1, 2, 3, 4, 5, 6.0])) == (6, pytest.approx(2 / 64))
    agree, p_value = stats.sign_agreement(np.array([-1, -2, -3, 1.0]))
    assert agree == 3 and p_value > 0.05
