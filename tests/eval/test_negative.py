"""C8's rule in simulated studies, and its regions."""

import numpy as np
import pytest

from eval.judge import negative, over_files
from eval.judge.rule_m import NO, OPEN, YES

FILES, ERROR, STUDIES = 55, 0.0008, 1000  # nats a token: that of one head's effect over so many files, as measured


def study(draw, effects, files=FILES, error=ERROR):
    """(tune, test, tokens) of a model whose heads have these effects under zero ablation; under mean nearly the same,
    since files move both alike."""
    tokens = draw.lognormal(7.5, 0.5, files)
    noise = error * np.sqrt(files)

    def rises():
        shared = draw.normal(size=(1, len(effects), files))
        own = draw.normal(size=(2, len(effects), files))
        return tokens * (np.asarray(effects)[None, :, None] + noise * (0.9 * shared + 0.44 * own))

    return rises().sum(axis=-1), rises(), tokens


@pytest.mark.parametrize("heads", [4, 16, 128])
def test_a_seed_says_yes_rarely_where_no_head_hurts_and_mostly_where_one_does(heads):
    draw, studies = np.random.default_rng(heads), STUDIES if heads < 128 else 400
    at_the_margin = np.full(heads, -negative.MARGIN)  # the worst case: every head is a candidate
    said = [negative.judge(*study(draw, at_the_margin)).answer for _ in range(studies)]
    assert said.count(YES) / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    hurts = np.where(np.arange(heads) == 1, -negative.MARGIN, draw.exponential(0.1, heads))
    missed = [negative.judge(*study(draw, hurts)).answer == NO for _ in range(studies)]
    assert np.mean(missed) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    one = np.where(np.arange(heads) == 1, -0.009, draw.exponential(0.01, heads))
    found = [negative.judge(*study(draw, one)) for _ in range(studies)]
    assert np.mean([each.answer == YES and each.confirmed[1] for each in found]) >= 0.9
    harmless = draw.exponential(0.01, heads) * (np.arange(heads) % 4 > 0)
    quiet = [negative.judge(*study(draw, harmless, error=0.0005)).answer for _ in range(200)]
    assert quiet.count(NO) / 200 >= (0.7 if heads < 128 else 0.3)


def test_a_head_negative_under_zero_alone_is_not_confirmed():
    draw = np.random.default_rng(0)
    tune, test, tokens = study(draw, [-0.02, 0.01])
    assert negative.judge(tune, test, tokens).answer == YES
    test[1, 0] = abs(test[1, 0])
    assert negative.judge(tune, test, tokens).answer != YES
    tune, test, tokens = study(draw, [-0.02, 0.01])
    tune[1, 0] = 1.0  # no candidate, so test is not asked
    assert negative.judge(tune, test, tokens).answer == OPEN


def test_regions_are_disjoint_and_cover_everything():
    draw, seen = np.random.default_rng(2), set()
    for _ in range(300):
        heads, files = draw.integers(1, 6), draw.integers(2, 30)
        effects = draw.normal(0, 0.006, heads)
        tune, test, tokens = study(draw, effects, files)
        found = negative.judge(tune, test * draw.choice([0, 1e-6, 1]), tokens)
        assert found.answer in (YES, NO, OPEN)
        assert not (found.confirmed.any() and (found.low > -negative.MARGIN).all())
        seen.add(found.answer)
    assert seen == {YES, NO, OPEN}


def test_limits_over_files_hold_the_truth():
    draw = np.random.default_rng(4)
    tokens = draw.lognormal(7.5, 0.5, 40)
    found = over_files.per_token(tokens * (0.3 + 0.1 * draw.normal(size=(4000, 40))), tokens)
    assert abs(np.mean(found.high(0.05) < 0.3) - 0.05) < 0.015 and abs(np.mean(found.low(0.05) > 0.3) - 0.05) < 0.015
    assert np.array_equal(found.p_below(0.25) < 0.05, found.high(0.05) < 0.25)
    plain = draw.normal(size=40)
    one = over_files.per_token(plain, np.ones(40))
    assert np.isclose(one.mean, plain.mean()) and np.isclose(one.error, plain.std(ddof=1) / np.sqrt(40))
