"""Holding work for a pool without replicas."""

from math import inf

import pytest

from tests.unit.router.items import make_request
from triptych.router.errors import QueueFull
from triptych.router.pool.hold import Hold
from triptych.router.pool.queue import PoolQueue


def test_jobs_are_held_for_equal_times() -> None:
    hold = Hold(10.0)
    one, two, three = (make_request([1, 1]) for _ in range(3))
    assert hold.ends_at == inf
    hold.begin(one.items, 0.0)
    hold.begin([*two.items, *one.items], 4.0)
    hold.begin(three.items, 4.0)
    hold.forget(three)
    assert hold.ends_at == 10.0
    assert hold.pop_expired(9.99) == []
    assert hold.pop_expired(10.0) == [one]
    assert hold.ends_at == 14.0
    assert hold.pop_expired(14.0) == [two]
    assert hold.ends_at == inf


def test_replica_up_ends_the_hold() -> None:
    hold = Hold(10.0)
    hold.begin(make_request([1]).items, 0.0)
    hold.end()
    assert hold.pop_expired(99.0) == []


@pytest.mark.parametrize("held", [True, False])
def test_held_time_does_not_count_as_slow(held: bool) -> None:
    queue = PoolQueue(10**6, 10**6)
    queue.admit(make_request([100] * 100).items, 0.0)
    drain(queue, 0.0)
    assert refuses(queue, 4.0)
    if held:
        queue.forget_rate()
        # A replica that stops still finishes its batch.
        queue.drained(make_request([100]).items[0], 10.0)
        assert not refuses(queue, 60.0)
    queue.measure_rate(60.0)
    assert refuses(queue, 60.5) != held
    drain(queue, 60.0)
    assert refuses(queue, 64.0)


def drain(queue: PoolQueue, start: float) -> None:
    """Drain 1,000 tokens a second for 4 s."""
    for step in range(1, 41):
        queue.drained(make_request([100]).items[0], start + step / 10)


def refuses(queue: PoolQueue, now: float) -> bool:
    """Whether a request with 10 s is refused; 10,000 tokens wait, and admission allows for half the rate."""
    try:
        queue.check_room(make_request([100]).items, now, deadline=now + 10)
        queue.check_any_room("retrieval", now, deadline=now + 10)
    except QueueFull:
        return True
    return False
