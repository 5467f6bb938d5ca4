"""Confidence in figures made of other figures."""

import math
import random

import numpy as np
import pytest

from loadtests.confidence import Estimate, difference, quotient, ratio


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says() -> None:
    """Of two means of skewed figures, each with an interval that is longer above than below."""
    draw, held = random.Random(5), 0
    for _ in range(400):
        one, other = (
            Estimate(value, value * math.exp(-1.96 * 0.1), value * math.exp(1.96 * 0.1))
            for value in (math.exp(draw.gauss(middle, 0.1)) for middle in (1.0, 0.0))
        )
        found = ratio(one, other)
        held += found.low <= math.e <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_each_end_of_a_ratio_comes_from_the_ends_that_make_it() -> None:
    above = ratio(Estimate(1.0, 1.0, 3.0), Estimate(2.0, 2.0, 2.0))
    assert above == pytest.approx((0.5, 0.5, 1.5))
    below = ratio(Estimate(2.0, 2.0, 2.0), Estimate(1.0, 1.0, 4.0))
    assert below == pytest.approx((2.0, 0.5, 2.0))
    assert ratio(Estimate(1.0, 0.0, 2.0), Estimate(1.0, 0.0, 2.0)) == (1.0, 0.0, math.inf)


def test_a_difference_is_surer_than_both_ends_at_once() -> None:
    found = difference(Estimate(0.5, 0.1, 0.8), Estimate(0.3, 0.1, 0.6))
    assert found == pytest.approx((0.2, 0.2 - 0.5, 0.2 + math.hypot(0.3, 0.2)))


def test_the_more_alike_neighbours_are_the_less_is_certain() -> None:
    draw = np.random.default_rng(1)
    alone = draw.normal(10, 1, 64)
    together = np.repeat(alone[::8], 8)
    seconds = np.ones(64)
    wide, narrow = (
        found.high - found.low for found in (quotient(together, seconds), quotient(alone, seconds))
    )
    assert wide > 2 * narrow
