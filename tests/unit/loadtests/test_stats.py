import pytest

from loadtests.bench.stats import percentile, spread


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.9, 9), (0.99, 10), (1.0, 10)]
)
def test_a_percentile_is_the_least_value_that_so_many_are_not_above(share: float, value: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert spread([5, 1, 2]) == (2, 1, 5)
    assert spread([4, 1, 2, 3]) == (2.5, 1, 4)


def test_nothing_measured_is_no_number() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)
