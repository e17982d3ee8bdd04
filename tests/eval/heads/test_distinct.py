"""Whether heads are distinct: known shares, and none where there is nothing to compare."""

import math

import numpy as np
import pytest

from eval.heads.roles import distinct


def values(rng, between: float, heads: int = 6, files: int = 80):
    """Profiles of five features, sums over files of ten queries each, with noise of variance 1 a file."""
    means = between * rng.normal(size=(5, 2, heads, 1))
    return 10 * (means + rng.normal(size=(5, 2, heads, files))), np.full((5, files), 10.0)


@pytest.mark.parametrize(("between", "wanted"), [(0.0, 0.0), (1 / math.sqrt(40), 0.5), (3.0, 1.0)])
def test_the_share_is_that_of_the_variance_between_heads(between, wanted):
    found = [distinct.share(*values(np.random.default_rng(seed), between)) for seed in range(8)]
    assert np.mean([each.share for each in found]) == pytest.approx(wanted, abs=0.1)
    assert all(each.low <= each.share <= each.high for each in found)


def test_one_head_and_few_files_have_no_share():
    rng = np.random.default_rng(0)
    assert math.isnan(distinct.share(*values(rng, 1.0, heads=1)).share)
    assert math.isnan(distinct.share(*values(rng, 1.0, files=3)).low)
