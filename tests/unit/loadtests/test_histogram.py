"""Times counted in buckets: percentiles off by one per cent at most, and sums of parts that are the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import histogram
from loadtests.bench.stats import percentile as exact

TIMES = st.lists(st.floats(2e-5, 500), min_size=1, max_size=300)


def counted(times: list[float]) -> histogram.Counts:
    return histogram.merged({histogram.bucket(time): 1} for time in times)


@given(TIMES, st.floats(0, 1))
def test_a_percentile_is_off_by_one_per_cent_at_most(times: list[float], share: float) -> None:
    assert histogram.percentile(counted(times), share) == pytest.approx(exact(times, share), rel=0.0101)


@given(TIMES)
def test_a_mean_is_off_by_one_per_cent_at_most(times: list[float]) -> None:
    assert histogram.mean(counted(times)) == pytest.approx(sum(times) / len(times), rel=0.0101)


@given(TIMES, TIMES)
def test_parts_add_up_to_the_whole(one: list[float], other: list[float]) -> None:
    assert histogram.merged([counted(one), counted(other)]) == counted(one + other)


def test_what_is_shorter_than_the_least_counts_as_the_least() -> None:
    assert histogram.percentile({histogram.bucket(0.0): 1}, 0.5) == histogram.LEAST_SECONDS


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        histogram.percentile({}, 0.5)
    with pytest.raises(ValueError, match="nothing"):
        histogram.mean({})
