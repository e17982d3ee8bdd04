"""Rule M by the counts that claims name, over every count of answers, and in simulated studies."""

import numpy as np
import pytest

from eval.judge import rule_m, rules
from eval.judge.rule_m import NO, OPEN, YES, decide


@pytest.mark.parametrize(
    "yes, no, undecided, verdict",
    [
        (5, 0, 0, "supported"),
        (7, 1, 0, "supported"),
        (9, 1, 0, "supported"),
        (8, 2, 0, "undecided"),
        (4, 0, 1, "undecided"),  # an open seed stays in the denominator
        (8, 0, 2, "undecided"),
        (0, 5, 0, "refuted"),
        (0, 9, 1, "refuted"),
        (0, 0, 9, "undecided"),
        (4, 0, 0, None),
        (0, 0, 0, None),
    ],
)
def test_the_counts_that_decide(yes, no, undecided, verdict):
    found = decide([YES] * yes + [NO] * no + [OPEN] * undecided)
    assert found.verdict == verdict
    assert found[1:5] == (yes, no, undecided, yes + no + undecided)


def test_no_counts_support_and_refute_and_all_have_a_verdict():
    for seeds in range(5, 13):
        for yes in range(seeds + 1):
            for no in range(seeds - yes + 1):
                found = decide([YES] * yes + [NO] * no + [OPEN] * (seeds - yes - no))
                assert found.verdict in (rules.SUPPORTED, rules.REFUTED, rules.UNDECIDED)
                assert not (found.yes_low > 0.5 and found.no_low > 0.5)
                mirrored = decide([NO] * yes + [YES] * no + [OPEN] * (seeds - yes - no))
                pairs = {rules.SUPPORTED: rules.REFUTED, rules.REFUTED: rules.SUPPORTED}
                assert mirrored.verdict == pairs.get(found.verdict, rules.UNDECIDED)


def test_a_fair_coin_is_rarely_called_either():
    draw, studies = np.random.default_rng(3), 400
    for seeds in (5, 8, 18):
        answers = np.where(draw.random((studies, seeds)) < 0.5, YES, NO).tolist()
        verdicts = [decide(each).verdict for each in answers]
        for verdict in (rules.SUPPORTED, rules.REFUTED):
            assert verdicts.count(verdict) / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_a_seed_answers_by_its_interval():
    assert [rule_m.answer(*ends, 0.1) for ends in ((0.2, 0.3), (0.0, 0.05), (0.05, 0.2))] == [YES, NO, OPEN]
    assert rule_m.answer(np.nan, np.nan, 0.1) == OPEN
    with pytest.raises(ValueError, match="and not maybe"):
        decide(["maybe"])


def test_the_seeds_that_would_decide():
    assert rule_m.seeds_to_decide(decide([YES] * 5)) == (5, 5)
    assert rule_m.seeds_to_decide(decide([YES] * 3)) == (5, 5)
    fewest, most = rule_m.seeds_to_decide(decide([YES] * 8 + [OPEN] * 2))
    assert fewest == 11 and decide([YES] * 9 + [OPEN] * 2).verdict == "supported"
    assert most == 13 and decide([YES] * 10 + [OPEN] * 3).verdict == "supported"
    assert rule_m.seeds_to_decide(decide([YES] * 2 + [NO] * 3))[1] == 80
    assert rule_m.seeds_to_decide(decide([YES, NO] * 3))[1] is None
