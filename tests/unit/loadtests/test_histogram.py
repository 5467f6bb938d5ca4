import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.loadtests import histogram

TIMES = st.lists(st.floats(2e-5, 500), min_size=1, max_size=300)


def counted(times: list[float]) -> histogram.Counts:
    return histogram.merged({histogram.bucket(time): 1} for time in times)


@given(TIMES, st.integers(0, 100))
def test_percentile_is_exact_to_one_percent(times: list[float], percent: int) -> None:
    rank = max(1, -(-percent * len(times) // 100))
    exact = sorted(times)[rank - 1]
    assert histogram.percentile(counted(times), percent / 100) == pytest.approx(exact, rel=0.0101)


@given(TIMES)
def test_mean_is_exact_to_one_percent(times: list[float]) -> None:
    assert histogram.mean(counted(times)) == pytest.approx(sum(times) / len(times), rel=0.0101)


@given(TIMES, TIMES)
def test_merged_parts_equal_the_whole(one: list[float], other: list[float]) -> None:
    assert histogram.merged([counted(one), counted(other)]) == counted(one + other)
