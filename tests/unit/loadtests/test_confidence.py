import math
import random

import numpy as np
import pytest

from triptych.loadtests.confidence import Estimate, quotient, ratio


def test_interval_of_ratio_covers_the_truth() -> None:
    draw, held = random.Random(5), 0
    for _ in range(400):
        one, other = (
            Estimate(value, value * math.exp(-1.96 * 0.1), value * math.exp(1.96 * 0.1))
            for value in (math.exp(draw.gauss(middle, 0.1)) for middle in (1.0, 0.0))
        )
        found = ratio(one, other)
        held += found.low <= math.e <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_ratio_combines_matching_bounds() -> None:
    above = ratio(Estimate(1.0, 1.0, 3.0), Estimate(2.0, 2.0, 2.0))
    assert above == pytest.approx((0.5, 0.5, 1.5))
    below = ratio(Estimate(2.0, 2.0, 2.0), Estimate(1.0, 1.0, 4.0))
    assert below == pytest.approx((2.0, 0.5, 2.0))
    assert ratio(Estimate(1.0, 0.0, 2.0), Estimate(1.0, 0.0, 2.0)) == (1.0, 0.0, math.inf)


def test_correlated_intervals_widen_the_bounds() -> None:
    alone = np.random.default_rng(1).normal(10, 1, 64)
    together, seconds = np.repeat(alone[::8], 8), np.ones(64)
    wide, narrow = quotient(together, seconds), quotient(alone, seconds)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
