"""When requests are due: as many as the rate says, in the order of time, shared out among processes."""

import random
from itertools import pairwise

import pytest

from loadtests.arrivals import Arrivals, due_times
from loadtests.results import Segment


def times(
    low: float, high: float, seconds: float, arrivals: Arrivals = "constant", processes: int = 1
) -> list[list[float]]:
    segment = Segment(name="x", seconds=seconds, rate=(low, high))
    draws = [random.Random(f"seed {process}") for process in range(processes)]
    return [
        list(due_times(segment, arrivals, process, processes, draw)) for process, draw in enumerate(draws)
    ]


def test_constant_arrivals_are_evenly_spaced_from_the_beginning() -> None:
    [found] = times(20, 20, 2)
    assert found == pytest.approx([number / 20 for number in range(40)])


def test_processes_take_turns() -> None:
    found = times(20, 20, 2, processes=4)
    assert sorted(time for its in found for time in its) == pytest.approx(
        [number / 20 for number in range(40)]
    )
    assert {len(its) for its in found} == {10}


@pytest.mark.parametrize(("low", "high"), [(0, 100), (100, 0), (10, 90), (50, 50)])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_ramp_has_as_many_as_its_mean_rate_says_and_in_order(
    low: float, high: float, processes: int
) -> None:
    found = times(low, high, 10, processes=processes)
    assert sum(map(len, found)) == pytest.approx(500, abs=processes)
    for its in found:
        assert all(one < other for one, other in pairwise(its))
        assert 0 <= its[0] <= its[-1] < 10
    first_half = sum(time < 5 for its in found for time in its)
    assert first_half == pytest.approx(5 * (low + (low + high) / 2) / 2, abs=processes + 1)


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_users() -> None:
    segment = Segment(name="x", seconds=500, rate=(20, 20))
    found = sorted(
        time
        for process in range(2)
        for time in due_times(segment, "poisson", process, 2, random.Random(process))
    )
    gaps = [other - one for one, other in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 20, rel=0.05)
    # Of an exponential distribution the spread is the mean.
    assert variance**0.5 / mean == pytest.approx(1, rel=0.05)


def test_a_rate_of_nothing_has_nothing_due() -> None:
    assert times(0, 0, 10) == [[]]
    assert times(0, 0, 10, "poisson") == [[]]


def test_a_segment_of_users_has_no_due_times() -> None:
    with pytest.raises(ValueError, match="no rate"):
        next(due_times(Segment(name="x", seconds=1, users=(1, 1)), "constant", 0, 1, random.Random()))
