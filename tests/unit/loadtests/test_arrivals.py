"""When requests are due in an open loop, and when users are there in a closed one."""

import random
from itertools import chain, pairwise

import pytest

from triptych.loadtests.arrivals import Arrivals, due_times, presence
from triptych.loadtests.results import Segment


def times(
    low: float, high: float, seconds: float, arrivals: Arrivals = "constant", processes: int = 1
) -> list[list[float]]:
    segment = Segment(name="x", seconds=seconds, rate=(low, high))
    draws = [random.Random(f"seed {process}") for process in range(processes)]
    return [
        list(due_times(segment, arrivals, process, processes, draw)) for process, draw in enumerate(draws)
    ]


def test_constant_arrivals_are_evenly_spaced() -> None:
    [found] = times(20, 20, 2)
    assert found == pytest.approx([number / 20 for number in range(40)])


def test_processes_take_turns() -> None:
    found = times(20, 20, 2, processes=4)
    assert sorted(chain(*found)) == pytest.approx([number / 20 for number in range(40)])
    assert {len(its) for its in found} == {10}


@pytest.mark.parametrize(("low", "high"), [(0, 100), (100, 0), (10, 90), (50, 50)])
@pytest.mark.parametrize("processes", [1, 3])
def test_ramp_has_the_mean_rate_in_order(low: float, high: float, processes: int) -> None:
    found = times(low, high, 10, processes=processes)
    assert sum(map(len, found)) == pytest.approx(500, abs=processes)
    for its in found:
        assert all(one < other for one, other in pairwise(its))
        assert 0 <= its[0] <= its[-1] < 10
    first_half = sum(time < 5 for its in found for time in its)
    assert first_half == pytest.approx(5 * (low + (low + high) / 2) / 2, abs=processes + 1)


def test_poisson_gaps_are_exponential() -> None:
    found = sorted(chain(*times(20, 20, 500, "poisson", processes=2)))
    gaps = [other - one for one, other in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 20, rel=0.05)
    # The standard deviation of an exponential distribution is its mean.
    assert variance**0.5 / mean == pytest.approx(1, rel=0.05)


def test_rate_zero_has_nothing_due() -> None:
    assert times(0, 0, 10) == [[]]
    assert times(0, 0, 10, "poisson") == [[]]


def test_users_have_no_due_times() -> None:
    with pytest.raises(ValueError, match="no rate"):
        next(due_times(Segment(name="x", seconds=1, users=(1, 1)), "constant", 0, 1, random.Random()))


@pytest.mark.parametrize(("low", "high"), [(10, 100), (100, 10), (5, 5), (0, 8)])
def test_users_follow_the_ramp(low: int, high: int) -> None:
    segment = Segment(name="x", seconds=20, users=(low, high))
    spans = [presence(segment, user) for user in range(120)]
    for at in (0.0, 5.0, 10.0, 19.999):
        present = sum(begin <= at < end for begin, end in spans)
        assert present == pytest.approx(low + (high - low) * at / 20, abs=1)
    assert all(begin == end for begin, end in spans[max(low, high) :])
