import random

import numpy as np

from triptych.loadtests.confidence import Estimate, difference, quotient


def test_interval_of_difference_covers_the_truth() -> None:
    draw, held = random.Random(5), 0
    for _ in range(400):
        one, other = (
            Estimate(value, value - 2.0, value + 2.0) for value in (draw.gauss(9, 1), draw.gauss(4, 1))
        )
        found = difference(one, other)
        held += found.low <= 5 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_correlated_intervals_widen_the_bounds() -> None:
    alone = np.random.default_rng(1).normal(10, 1, 64)
    together, seconds = np.repeat(alone[::8], 8), np.ones(64)
    wide, narrow = quotient(together, seconds), quotient(alone, seconds)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
