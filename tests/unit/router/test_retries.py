"""The retry budget of a pool."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.router.pool.retry_budget import (
    FLOOR_PER_SECOND,
    SHARE_OF_TRAFFIC,
    SMALLEST_CAPACITY,
    RetryBudget,
)


def spent(budget: RetryBudget, now: float = 0.0) -> int:
    """Number of retries that it grants at once."""
    return next(count for count in range(10_000) if not budget.spend(now))


@pytest.mark.parametrize(("lanes", "retries"), [(100, 100), (1, SMALLEST_CAPACITY)])
def test_capacity_is_the_number_of_lanes(lanes: int, retries: int) -> None:
    assert spent(RetryBudget(lanes, now=0.0)) == retries


def test_budget_recovers_with_time() -> None:
    budget = RetryBudget(lanes=1, now=50.0)
    assert spent(budget, 50.0) == SMALLEST_CAPACITY
    assert not budget.spend(50.0 + 0.5 / FLOOR_PER_SECOND)
    assert budget.spend(50.0 + 1.0 / FLOOR_PER_SECOND)
    assert not budget.spend(50.0 + 1.0 / FLOOR_PER_SECOND)


def test_budget_is_capped() -> None:
    budget = RetryBudget(lanes=20, now=0.0)
    for _ in range(10_000):
        budget.earn()
    assert spent(budget, 1e6) == 20


@given(
    lanes=st.integers(1, 50),
    events=st.lists(st.booleans() | st.floats(0, 5), max_size=300),
)
def test_retries_never_exceed_the_budget(lanes: int, events: list[bool | float]) -> None:
    """For any mix of batches (True), failures (False) and seconds."""
    budget = RetryBudget(lanes, 0.0)
    now, sent, granted = 0.0, 0, 0
    for event in events:
        if event is True:
            budget.earn()
            sent += 1
        elif event is False:
            granted += budget.spend(now)
        else:
            now += event
    allowed = max(lanes, SMALLEST_CAPACITY) + sent * SHARE_OF_TRAFFIC + now * FLOOR_PER_SECOND
    assert granted <= allowed + 1e-6
