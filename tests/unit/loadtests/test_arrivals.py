"""When requests are due."""

import random
from itertools import chain, pairwise

import pytest

from triptych.loadtests.arrivals import Arrivals, due_times
from triptych.loadtests.results import Segment


def times(
    rate: float, seconds: float, arrivals: Arrivals = "constant", processes: int = 1
) -> list[list[float]]:
    segment = Segment(name="x", seconds=seconds, rate=rate)
    draws = [random.Random(f"seed {process}") for process in range(processes)]
    return [
        list(due_times(segment, arrivals, process, processes, draw)) for process, draw in enumerate(draws)
    ]


@pytest.mark.parametrize("processes", [1, 4])
def test_constant_arrivals_are_evenly_spaced_and_take_turns(processes: int) -> None:
    found = times(20, 2, processes=processes)
    assert sorted(chain(*found)) == pytest.approx([number / 20 for number in range(40)])
    assert {len(its) for its in found} == {40 // processes}


def test_poisson_gaps_are_exponential() -> None:
    found = sorted(chain(*times(20, 500, "poisson", processes=2)))
    gaps = [other - one for one, other in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 20, rel=0.05)
    # The standard deviation of an exponential distribution is its mean.
    assert variance**0.5 / mean == pytest.approx(1, rel=0.05)


def test_rate_zero_has_nothing_due() -> None:
    assert times(0, 10) == [[]]
    assert times(0, 10, "poisson") == [[]]
