"""Retries: the budget of a pool, and what is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from tests.metrics import parse, value
from tests.unit.router.items import vector
from tests.unit.router.told import Told
from triptych.router.errors import Internal, Unavailable
from triptych.router.pool.call import REJECTED, Declined
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
    budget = RetryBudget(lanes, now=0.0)
    assert spent(budget) == retries
    for _ in range(10_000):
        budget.earn()
    assert spent(budget, 1e6) == retries


def test_budget_recovers_with_time() -> None:
    budget = RetryBudget(lanes=1, now=50.0)
    assert spent(budget, 50.0) == SMALLEST_CAPACITY
    assert not budget.spend(50.0 + 0.5 / FLOOR_PER_SECOND)
    assert budget.spend(50.0 + 1.0 / FLOOR_PER_SECOND)
    assert not budget.spend(50.0 + 1.0 / FLOOR_PER_SECOND)


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


def test_batches_of_removed_replicas_can_all_be_retried() -> None:
    """The pool has no lanes any more, which bound its retry budget."""
    pool = Told(*[4] * (2 * SMALLEST_CAPACITY), batch_items=1, hold_seconds=10.0)
    replicas = pool.replicas
    job = pool.ask(4 * len(replicas))
    assert len(pool.in_flight) == len(job.items)
    pool.set_replicas([], 0.0)
    for replica in replicas * 4:
        pool.failed(replica)
    assert len(pool.queue.waiting()) == len(job.items)
    pool.expire(10.0)
    assert isinstance(job.error, Unavailable)


@pytest.mark.parametrize("done", [0, 5])
def test_failed_batch_costs_one_retry(done: int) -> None:
    pool = Told(1, batch_items=10 * SMALLEST_CAPACITY)
    job = pool.ask(5 * SMALLEST_CAPACITY)
    pool.done(failing_after=done)
    assert pool.last() == job.items[done:]
    pool.done()
    assert job.vectors() == [vector(item) for item in job.items]


def test_retries_are_counted_by_reason() -> None:
    pool = Told(1)
    pool.ask()
    pool.failed()
    pool.done(failing_after=0)
    page = parse(generate_latest(pool.metrics.registry).decode())
    # The alert on retries has these names.
    for reason in ("replica_failed", "item_failed"):
        assert value(page, "triptych_router_retries_total", pool="retrieval", reason=reason) == 1


def test_retries_are_bounded_when_all_fail() -> None:
    """The clock stands still, so time earns no retry."""
    pool = Told(1)
    for _ in range(300):
        pool.ask()
        while pool.replica.lanes_in_use:
            pool.done(failing_after=0)
    sent = len(pool.started)
    allowed = SMALLEST_CAPACITY + SHARE_OF_TRAFFIC * sent
    assert 0.9 * allowed < sent - 300 <= allowed


def test_rejected_input_fails_alone() -> None:
    pool = Told(1)

    def reject() -> None:
        [batch] = pool.in_flight
        pool.declined(pool.replica, batch, Declined(REJECTED), 0.0)
        pool.ended(pool.replica, batch, 0.0)
        pool.dispatch()

    pool.ask()
    wrong, right = pool.ask(), pool.ask()
    pool.done()
    assert pool.last() == [*wrong.items, *right.items]
    reject()
    assert pool.last() == wrong.items
    reject()
    assert isinstance(wrong.error, Internal)
    pool.done()
    assert right.vectors()
