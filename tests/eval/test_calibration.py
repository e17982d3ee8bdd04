"""How often the intervals hold the truth, on simulated crossed studies whose truth is 0.

pytest -m slow -s tests/eval/test_calibration.py prints the table.
"""

import numpy as np
import pytest

from eval.judge import intervals

STUDIES = 10_000
SPREAD = 0.7  # of log document length: so many documents weigh as exp(-SPREAD^2) as many of equal length
MAIN, DOCUMENT, REST = 0.01, 0.03, 0.03  # standard deviations of seed, document and their interaction


def coverage(seeds: int, effective: int, effects) -> tuple[float, float, float]:
    """Share of studies whose interval (these documents, new documents) holds 0, and the mean effective documents."""
    rng = np.random.default_rng(1000 * seeds + effective)
    documents = round(effective * np.exp(SPREAD**2))
    held, sizes = np.zeros(2), 0.0
    for _ in range(STUDIES):
        tokens = np.exp(SPREAD * rng.normal(size=documents))
        table = MAIN * effects(rng, (seeds, 1)) + DOCUMENT * effects(rng, documents)
        sums = (table + REST * rng.normal(size=(seeds, documents))) * tokens
        found = [of(sums, tokens) for of in (intervals.these_documents, intervals.new_documents)]
        held += [one.low <= 0 <= one.high for one in found]
        sizes += intervals.effective_documents(tokens)
    return *(held / STUDIES), sizes / STUDIES


def normal(rng, shape):
    return rng.normal(size=shape)


def skewed(rng, shape):
    """Exponential, centred: skewness 2."""
    return rng.exponential(size=shape) - 1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("effective, low, high", [(20, 0.90, 0.99), (100, 0.92, 0.985)])
def test_the_interval_for_new_documents_covers(seeds, effective, low, high):
    these, new, sizes = coverage(seeds, effective, normal)
    print(f"\nnormal, {seeds} seeds, {sizes:.0f} effective documents: these {these:.3f}, new {new:.3f}")
    assert low <= new <= high
    if seeds == 10:  # few seeds' own t interval is wide enough for both
        assert these < 0.9 < new


@pytest.mark.slow
@pytest.mark.parametrize("effective", [2, 5, 10])
def test_too_few_documents_are_reported(effective):
    """Why a verdict is about these documents below intervals.ENOUGH_DOCUMENTS."""
    these, new, sizes = coverage(10, effective, normal)
    print(f"\nnormal, 10 seeds, {sizes:.1f} effective documents: these {these:.3f}, new {new:.3f}")
    assert these < new < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_skewed_effects_are_reported(seeds):
    these, new, sizes = coverage(seeds, 50, skewed)
    print(f"\nskewed, {seeds} seeds, {sizes:.0f} effective documents: these {these:.3f}, new {new:.3f}")
    assert 0.75 < new < 1
