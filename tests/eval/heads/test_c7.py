"""C7's rule on simulated seeds."""

import numpy as np
import pytest

from eval.judge import rules
from eval.judge.claims.c7_hierarchy import MARGIN, Seed, decide


def seeds(random, effect, number=5, files=60, between=0.05, within=0.3, impossible=0.02):
    """Seeds whose true difference lies `between` seeds about `effect`, measured on files of unequal length."""
    tokens = random.integers(20, 120, files).astype(float)
    made = []
    for _ in range(number):
        own = effect + between * random.normal()
        others = 0.02 * tokens
        top = others + tokens * (own + within * random.normal(size=files))
        made.append(Seed(top, others, tokens, impossible + 0.01 * random.normal()))
    return made


def test_it_is_found_where_it_is_and_refuted_where_it_is_not():
    random = np.random.default_rng(0)
    verdicts = lambda effect: [decide(seeds(random, effect)).shares.verdict for _ in range(200)]  # noqa: E731
    assert verdicts(1.0).count(rules.SUPPORTED) >= 198
    assert verdicts(-0.2).count(rules.REFUTED) >= 190
    assert verdicts(0.0).count(rules.SUPPORTED) == 0


def test_at_the_margin_a_verdict_is_wrong_in_at_most_one_in_twenty():
    random = np.random.default_rng(1)
    verdicts = [decide(seeds(random, MARGIN, between=0.0)).shares.verdict for _ in range(400)]
    assert verdicts.count(rules.SUPPORTED) + verdicts.count(rules.REFUTED) <= 0.05 * 400


@pytest.mark.parametrize("number, files, impossible, why", [
    (4, 60, 0.05, "5 seeds that bear induction are the least, and 4 do"),
    (5, 60, 0.2, "the null does not hold"),
    (5, 8, 0.05, "20 effective files"),
])  # fmt: skip
def test_what_cannot_be_tested_says_why(number, files, impossible, why):
    decision = decide(seeds(np.random.default_rng(2), 1.0, number, files, impossible=impossible))
    assert decision.shares is None and why in decision.why and len(decision.each) == number
