"""Who decides, on simulated factorials, and the matching of heads."""

import numpy as np
import pytest

from eval.heads.composition import factorial, matching
from eval.heads.composition.factorial import MORE, PARTS, Runs

ALONE_INIT, ALONE_DATA, BOTH, NEITHER = (0.6, 0, 0.3, 0.1), (0, 0.6, 0.3, 0.1), (0.35, 0.35, 0.2, 0.1), (0, 0, 0.6, 0.4)


def simulated(random, components, width=12, inits=8, orders=8, repeats=16):
    """Runs whose profiles, of `width` features of falling weight, are sums of what each part draws."""
    spread = np.sqrt(0.8 ** np.arange(width))
    draw = lambda share, *shape: np.sqrt(share) * spread * random.normal(size=(*shape, width))  # noqa: E731
    of_init, of_data, of_both, chaos = components
    whole = draw(of_init, inits, 1) + draw(of_data, 1, orders) + draw(of_both, inits, orders)
    init, data = (each.ravel() for each in np.indices((inits, orders)))
    order = np.argsort((data - init) % orders, kind="stable")[:repeats]
    init, data = np.r_[init, init[order]], np.r_[data, data[order]]
    profiles = whole[init, data] + draw(chaos, len(init))
    apart = np.sum((profiles[:, None] - profiles) ** 2, axis=2) / 2
    return Runs(init, data, np.arange(len(init)) >= inits * orders, apart)


@pytest.fixture
def few_permutations(monkeypatch):
    monkeypatch.setattr(factorial, "PERMUTATIONS", 1)


@pytest.mark.parametrize("width", [2, 12])
@pytest.mark.parametrize("components", [ALONE_INIT, ALONE_DATA, BOTH, NEITHER])
def test_intervals_hold_the_truth_and_the_wrong_one_is_seldom_named(components, width, few_permutations):
    random, draws = np.random.default_rng(width), 150
    truth = np.array([*components, components[0] - components[1]]) / sum(components)
    right = {ALONE_INIT: "init", ALONE_DATA: "data"}.get(components, "")
    inside, named, total = np.zeros(5), [], np.zeros(5)
    for _ in range(draws):
        found = factorial.shares(simulated(random, components, width))
        ends = np.array([found[name][:3] for name in (*PARTS, MORE)])
        inside += (ends[:, 1] <= truth) & (truth <= ends[:, 2])
        total += ends[:, 0]
        named.append(factorial.told_apart(found[MORE]))
    assert (inside / draws >= 0.93).all(), inside / draws
    assert sum(name not in ("", right) for name in named) <= 0.05 * draws
    assert not right or width < 12 or named.count(right) > 0.9 * draws
    np.testing.assert_allclose(total / draws, truth, atol=0.09)
    np.testing.assert_allclose((total / draws)[:4].sum(), 1)


def test_a_permuted_table_has_no_shares_and_tests_keep_their_level(monkeypatch):
    monkeypatch.setattr(factorial, "PERMUTATIONS", 99)
    random, p_values, nulls = np.random.default_rng(0), [], []
    for _ in range(60):
        found = factorial.shares(simulated(random, NEITHER, inits=4, orders=4, repeats=4))
        p_values += [found["init"].p, found["data"].p]
        nulls += [found["init"].null, found["data"].null]
    assert abs(np.mean(nulls)) < 0.02 and np.mean(np.array(p_values) < 0.05) < 0.12
    found = factorial.shares(simulated(random, ALONE_INIT))
    assert found["init"].p == 0.01 and found["data"].p > 0.01


def test_a_table_with_runs_missing_needs_no_other_formula(few_permutations):
    random, totals = np.random.default_rng(1), []
    for _ in range(60):
        runs = simulated(random, ALONE_INIT)
        kept = random.random(len(runs.init)) > 0.15
        totals.append([found.share for found in factorial.shares(factorial._some(runs, kept)).values()])
    np.testing.assert_allclose(np.mean(totals, axis=0), [*ALONE_INIT, 0.6], atol=0.06)


def test_two_by_two_gives_shares_without_an_interval():
    found = factorial.shares(simulated(np.random.default_rng(2), BOTH, inits=2, orders=2, repeats=2))
    assert all(np.isfinite(share.share) and np.isnan(share.low) for share in found.values())
    assert factorial.told_apart(found[MORE]) == ""


def test_heads_in_another_order_are_matched_and_noise_is_not():
    random, heads = np.random.default_rng(3), 6
    patterns, order = random.normal(size=(heads, 2000)), random.permutation(6)
    sums = matching.Correlations(3 * heads)
    for half in (0, 1):
        for part in np.split(patterns[:, half * 1000 : (half + 1) * 1000], 4, axis=1):
            noise = random.normal(size=part.shape)
            sums.add(half, np.concatenate([part, part[order] + noise, random.normal(size=part.shape)]))
    r, alive = sums.correlations(), np.ones(heads, bool)
    exact = np.corrcoef(patterns[:, :1000])
    np.testing.assert_allclose(r[0][:heads, :heads], exact, atol=1e-9)
    found = matching.agreement(r[:, :heads, heads : 2 * heads], (alive, alive))
    assert abs(found.matched - np.sqrt(0.5)) < 0.05 and found.by_index < 0.6 and found.left_out == 0
    noise = matching.agreement(r[:, :heads, 2 * heads :], (alive, alive))
    assert abs(noise.matched) < 0.05 and abs(noise.by_index) < 0.05


def test_heads_that_write_nothing_are_left_out_and_counted():
    r = np.stack([np.eye(4), np.eye(4)])
    first, second = np.array([True, True, True, False]), np.array([True, False, True, True])
    found = matching.agreement(r, (first, second))
    assert found.by_index == 1 and found.left_out == 2 and 0 < found.matched < 1
    none = matching.agreement(r, (~np.ones(4, bool), second))
    assert np.isnan(none.by_index) and np.isnan(none.matched) and none.left_out == 5
