"""C6's rule in simulated studies, its regions, and the runs that it asks for."""

import numpy as np
import pytest

from eval.judge import rule_m, rules
from eval.judge.rule_m import NO, OPEN, YES
from eval.judge.single import redundancy


def files(draw, rise, count=55, noise=0.01):
    """Summed losses by file of a pruned model and its copy, whose loss is `rise` lower, with files' own differences."""
    tokens = draw.lognormal(7.5, 0.5, count)
    copy = tokens * draw.normal(2.0, 0.2, count)
    return copy * (1 + rise + noise * draw.normal(size=count)), copy


@pytest.mark.parametrize("rise, wrong", [(0.0101, YES), (0.0099, NO)])
def test_a_seed_rarely_says_what_is_not_so(rise, wrong):
    draw = np.random.default_rng(6)
    said = [redundancy.judge(*files(draw, rise)).answer for _ in range(1000)]
    assert said.count(wrong) / 1000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("rise, verdict", [(-0.002, rules.SUPPORTED), (0.05, rules.REFUTED), (0.01, rules.UNDECIDED)])
def test_a_study_finds_what_is_far_from_the_tolerance(rise, verdict):
    draw, verdicts = np.random.default_rng(7), []
    for _ in range(100):
        seeds = rise + 0.002 * draw.normal(size=5)
        verdicts.append(rule_m.decide([redundancy.judge(*files(draw, own)).answer for own in seeds]).verdict)
    assert verdicts.count(verdict) >= 90


def test_regions_are_disjoint_and_cover_everything():
    draw, seen = np.random.default_rng(8), set()
    for _ in range(300):
        found = redundancy.judge(
            *files(draw, draw.normal(0.01, 0.01), draw.integers(2, 30), draw.choice([0, 0.01, 0.1]))
        )
        assert found.answer == (
            YES if found.high <= redundancy.TOLERANCE else NO if found.low > redundancy.TOLERANCE else OPEN
        )
        assert found.low <= found.rise <= found.high
        seen.add(found.answer)
    assert seen == {YES, NO, OPEN}


def test_the_rise_is_relative_to_the_copy():
    copy = np.array([100.0, 200.0, 300.0])
    found = redundancy.judge(1.05 * copy, copy)
    assert np.isclose(found.rise, 0.05) and found.answer == NO
    assert redundancy.judge(copy, copy).answer == YES
