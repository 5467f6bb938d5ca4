"""Which vectors a benchmark takes for the same."""

import numpy as np
import pytest

from loadtests.bench.load import Vector
from loadtests.bench.measure import Collector, differ

UNIT = np.array([0.6, 0.8], np.float32)


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        (UNIT, False),
        (UNIT + np.float32(5e-6), False),
        (np.array([0.6001, 0.7999], np.float32), True),
        (np.array([0.6, 0.8, 0.0], np.float32), True),
        (np.array([np.nan, 0.8], np.float32), True),
        (UNIT * 2, True),
        (np.empty(0, np.float32), True),
    ],
)
def test_a_vector_is_wrong_that_is_not_the_same_unit_vector(other: Vector, wrong: bool) -> None:
    assert differ(other, UNIT) is wrong


def test_vectors_are_compared_by_request_and_a_missing_one_is_wrong() -> None:
    collector = Collector("load", "system")
    collector.check({0: [UNIT], 40: [UNIT[::-1]], 80: [UNIT]}, {0: [UNIT], 40: [UNIT], 80: [UNIT, UNIT]})
    assert (collector.row.vectors_checked, collector.row.vectors_wrong) == (3, 2)


def test_the_first_system_is_checked_too() -> None:
    collector = Collector("load", "system")
    collector.check({0: [UNIT * 2]}, {})
    assert collector.row.vectors_wrong == 1
