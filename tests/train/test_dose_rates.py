"""The rate of a cell of the dose, and when a rate's runs may stop."""

import numpy as np
import pytest

from train.study import dose_rates


def test_the_choice_of_a_rate():
    assert dose_rates.best_rate({0.001: [900, 1_100], 0.003: [500, 900]}, {0.001: 0, 0.003: 1}) == 0.003
    assert dose_rates.best_rate({0.001: [800, 800], 0.003: [700, 900]}, {0.001: 0.2, 0.003: 0.1}) == 0.003
    assert dose_rates.best_rate({0.003: [800, 800], 0.001: [700, 900]}, {0.001: 0.1, 0.003: 0.1}) == 0.001
    rates = (0.001, 0.003, 0.01)
    assert [dose_rates.extension(rates, rate) for rate in rates] == [pytest.approx(0.0003), None, pytest.approx(0.03)]
    assert dose_rates.extension((0.003, 0.01, 0.03), 0.003) == pytest.approx(0.001)
    assert dose_rates.extension((0.001, 0.003), 0.003) == pytest.approx(0.01)


def test_a_rate_stops_as_soon_as_it_cannot_be_best():
    """Stopping never changes which rate is best."""
    assert not dose_rates.hopeless(800, {0.001: [None, None], 0.003: [600, None]}, 0.001), "no other is whole"
    assert not dose_rates.hopeless(700, {0.001: [None, None], 0.003: [600, 900]}, 0.001)
    assert dose_rates.hopeless(800, {0.001: [None, None], 0.003: [600, 900]}, 0.001)
    assert dose_rates.hopeless(1_200, {0.001: [400, None], 0.003: [600, 900]}, 0.001)
    draw = np.random.default_rng(0)
    for _ in range(200):
        truth = {rate: sorted(draw.integers(1, 40, 2) * 50) for rate in (0.001, 0.003, 0.01)}
        stopped = {}
        for step in range(50, 2_050, 50):
            known = {rate: [run if run <= step else None for run in runs] for rate, runs in truth.items()}
            for rate in truth:
                if rate not in stopped and None in known[rate] and dose_rates.hopeless(step, known, rate):
                    stopped[rate] = [step if run is None else run for run in known[rate]]
        medians = {rate: np.median(runs) for rate, runs in truth.items()}
        found = dose_rates.best_rate(truth | stopped, dict.fromkeys(truth, 0.0))
        assert medians[found] == min(medians.values())
