"""The two intervals: against SciPy and by hand, and what they do where there is too little."""

import math

import numpy as np
import pytest
import scipy.stats

from eval.judge import intervals


def study(seeds=5, documents=40, seed=0, lengths=None):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(50, 500, documents) if lengths is None else np.full(documents, lengths)
    table = 0.02 + 0.01 * rng.normal(size=(seeds, 1)) + 0.03 * rng.normal(size=documents)
    return (table + 0.02 * rng.normal(size=(seeds, documents))) * tokens, tokens


def test_these_documents_is_scipys_t_interval_of_the_pooled_losses():
    sums, tokens = study()
    pooled = sums.sum(1) / tokens.sum()
    wanted = scipy.stats.ttest_1samp(pooled, 0).confidence_interval(0.95)
    found = intervals.these_documents(sums, tokens)
    np.testing.assert_allclose((found.low, found.high), wanted)
    assert found.parts == ((1.0, 4),)
    assert found.mean == pytest.approx(pooled.mean())


def test_new_documents_by_hand_where_all_are_equally_long():
    sums, tokens = study(3, 4, lengths=10)
    table = sums / 10
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    seed = 4 * np.sum((rows - mean) ** 2) / 2
    document = 3 * np.sum((columns - mean) ** 2) / 3
    residual = sum((table[i, j] - rows[i] - columns[j] + mean) ** 2 for i in range(3) for j in range(4)) / 6
    combined = max(seed + document - residual, seed, document)
    t = scipy.stats.t.ppf
    half = math.sqrt(combined / 12) * (seed * t(0.975, 2) + document * t(0.975, 3)) / (seed + document)
    np.testing.assert_allclose(intervals.new_documents(sums, tokens)[:3], (mean, mean - half, mean + half))


def test_new_documents_are_less_certain_than_these():
    these, new = (of(*study()) for of in (intervals.these_documents, intervals.new_documents))
    assert new.mean == pytest.approx(these.mean)
    assert new.high - new.low > these.high - these.low


def test_documents_alike_make_the_two_agree():
    """Where every document says the same, only the seeds count: by the floor both have the variance over seeds."""
    tokens = np.array([10, 30, 60])
    sums = np.array([[0.1], [0.2], [0.4]]) * tokens
    these, new = (of(sums, tokens) for of in (intervals.these_documents, intervals.new_documents))
    np.testing.assert_allclose(new[:4], these[:4])


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero():
    sums, tokens = study(3)
    for shift in (-0.2, 0.1):
        found = intervals.new_documents(sums + shift * tokens, tokens)
        p = intervals.p_of_so_low(found)
        assert 0 < p < 1
        again = intervals.new_documents(sums + shift * tokens, tokens, abs(1 - 2 * p))
        assert (again.high if p < 0.5 else again.low) == pytest.approx(0, abs=1e-9)
    these = intervals.these_documents(sums - 0.03 * tokens, tokens)
    pooled = (sums - 0.03 * tokens).sum(1) / tokens.sum()
    wanted = scipy.stats.ttest_1samp(pooled, 0, alternative="less").pvalue
    assert intervals.p_of_so_low(these) == pytest.approx(wanted)


@pytest.mark.parametrize("seeds, documents", [(1, 5), (5, 1)])
def test_one_seed_or_one_document_gives_no_interval_for_new_documents(seeds, documents):
    found = intervals.new_documents(*study(seeds, documents))
    assert math.isnan(found.low) and math.isnan(found.high) and math.isfinite(found.mean)


def test_one_seed_gives_no_interval_for_these_documents():
    assert math.isnan(intervals.these_documents(*study(1)).low)


def test_effective_documents():
    assert intervals.effective_documents(np.full(7, 100)) == pytest.approx(7)
    assert intervals.effective_documents(np.array([1_000_000, 1, 1])) == pytest.approx(1, abs=1e-5)


def test_equivalence_is_two_one_sided_tests():
    sums, tokens = study(lengths=100)
    pooled = sums.sum(1) / tokens.sum()
    for margin in (0.001, 0.02, 0.03, 0.04, 0.2):
        p = max(
            scipy.stats.ttest_1samp(pooled, -margin, alternative="greater").pvalue,
            scipy.stats.ttest_1samp(pooled, margin, alternative="less").pvalue,
        )
        assert intervals.within(intervals.these_documents, sums, tokens, margin) == (p < 0.05)
