"""Decisions of a pool over time, without tasks or timers."""

from math import inf

import pytest
from msgspec.structs import replace

from tests.unit.router.apps import info
from tests.unit.router.items import NEVER, make_request
from tests.unit.router.told import Told
from triptych.router.errors import CrashesWorker, QueueFull, TimedOut, Unavailable
from triptych.router.pool.breaker import FAILURES_UNTIL_OPEN, BreakerState
from triptych.router.pool.call import Declined
from triptych.router.pool.choice import QUERIES_SECONDS
from triptych.router.pool.pace import BATCHES_UNTIL_JUDGED
from triptych.router.pool.replica import LONGEST_PAUSE_SECONDS
from triptych.workers.shared import contract


def test_bulk_gets_more_lanes_when_queries_stop() -> None:
    pool = Told(4, batch_items=1)
    pool.ask()
    pool.ask(2, bulk=True)
    assert len(pool.in_flight) == 2
    assert pool.wake_at(0.0) == QUERIES_SECONDS
    pool.now = QUERIES_SECONDS
    pool.dispatch()
    assert len(pool.in_flight) == 3


def test_hopeless_deadline_is_refused() -> None:
    pool = Told(1)
    pool.ask(1000)
    pool.ask(1000, bulk=True)
    for step in range(1, 51):
        pool.queue.drained(make_request([10]).items[0], step / 10)
    hurried = make_request([1]).items
    pool.check_room(hurried, 5.0, deadline=60.0)
    pool.check_any_room(5.0, deadline=60.0)
    with pytest.raises(QueueFull):
        pool.check_room(hurried, 5.0, deadline=6.0)
    with pytest.raises(QueueFull):
        pool.check_any_room(5.0, deadline=6.0)


def test_refused_bulk_does_not_delay_queries() -> None:
    pool = Told(4)
    pool.ask(bulk=True)
    [batch] = pool.in_flight
    pool.declined(pool.replica, batch, Declined(contract.OVERLOADED, seconds=1e9), 0.0)
    assert (pool.replica.breaker.failures, batch.items[0].tries) == (0, 0)
    pool.ended(pool.replica, batch, 0.0)
    query = pool.ask()
    assert pool.last() == query.items
    assert len(pool.in_flight) == 1
    assert pool.wake_at(0.0) == LONGEST_PAUSE_SECONDS


def test_death_counts_after_the_client_has_left() -> None:
    pool = Told(1, hold_seconds=10.0)
    pool.ask().fail(TimedOut("its client has left"), 0.0)
    pool.failed(dead_instance="one")
    again = pool.ask()
    pool.failed(dead_instance="two")
    assert isinstance(again.error, CrashesWorker)


@pytest.mark.parametrize("number", [0, 1])
def test_required_space_chooses_the_replica(number: int) -> None:
    pool = Told(2, 2)
    for replica, space in zip(pool.replicas, ("old", "new"), strict=True):
        replica.up(replace(info("retrieval"), space=space))
    replica = pool.replicas[number]
    job = make_request([1] * 9)
    job.required = {"": frozenset([replica.space])}
    pool.admit(job.items, 0.0)
    pool.dispatch()
    assert {one for one, *_ in pool.started} == {replica}
    assert sum(len(batch.items) for _, batch, *_ in pool.started) == 9


def test_bulk_of_another_space_does_not_delay_queries() -> None:
    pool = Told(1, 1, batch_items=1)
    old, new = pool.replicas
    new.up(replace(info("retrieval"), space="new"))
    bulk = pool.ask(2, bulk=True)
    # They earn a batch of bulk, which only the busy replica may have.
    queries = [pool.ask() for _ in range(10)]
    while new.lanes_in_use:
        pool.done(new)
    assert all(query.closed for query in queries)
    pool.done(old)
    pool.done(old)
    assert bulk.vectors()


def test_success_clears_a_suspect() -> None:
    pool = Told(1)
    for instance in ("one", "two", "three"):
        job = pool.ask()
        pool.failed(dead_instance=instance)
        pool.done()
        assert job.vectors()


def test_retry_waits_for_a_sound_replica() -> None:
    pool = Told(1, 1)
    sound, failing = pool.replicas
    pool.ask()
    job = pool.ask()
    assert pool.last(failing) == job.items
    pool.failed(failing)
    assert pool.queue.waiting() == job.items
    pool.done(sound)
    assert pool.last(sound) == job.items


def test_death_of_the_only_replica_refuses_its_work() -> None:
    pool = Told(1, batch_items=1)
    in_flight, waiting = pool.ask(), pool.ask()
    pool.replica.down("connection refused", gone=True)
    assert isinstance(waiting.error, Unavailable)
    pool.failed()
    assert isinstance(in_flight.error, Unavailable)
    with pytest.raises(Unavailable):
        pool.check_room(make_request([1]).items, 0.0, NEVER)


def test_hold_starts_when_the_last_replica_dies() -> None:
    """Waiting for a busy replica is no hold."""
    pool = Told(1, batch_items=1, hold_seconds=10.0)
    job = pool.ask(2)
    pool.now = 5.0
    pool.changed()
    assert pool.wake_at(5.0) == inf
    pool.now = 50.0
    pool.replicas[0].down("connection refused", gone=True)
    assert pool.wake_at(50.0) == 60.0
    pool.now = 55.0
    pool.ask()
    pool.changed()
    pool.expire(59.9)
    assert not job.closed
    pool.expire(60.0)
    assert isinstance(job.error, Unavailable)
    assert pool.wake_at(60.0) == 65.0
    pool.replicas[0].up(info("retrieval"))
    assert pool.wake_at(60.0) == inf


def test_held_time_does_not_count_as_slow() -> None:
    pool = Told(1, hold_seconds=100.0)
    pool.ask(1000)
    for step in range(1, 41):
        pool.queue.drained(make_request([100]).items[0], step / 10)
    pool.now = 4.0
    pool.replica.draining()
    # A replica that stops still finishes its batch.
    pool.queue.drained(make_request([100]).items[0], 10.0)
    hurried = make_request([1]).items
    pool.check_room(hurried, 60.0, deadline=70.0)
    pool.now = 60.0
    pool.replica.up(info("retrieval"))
    pool.check_room(hurried, 60.5, deadline=70.5)
    # Now it is slow.
    for step in range(1, 41):
        pool.queue.drained(make_request([1]).items[0], 60 + step / 10)
    with pytest.raises(QueueFull):
        pool.check_room(hurried, 64.0, deadline=74.0)


@pytest.mark.parametrize(
    ("event", "lanes"), [("the fast one dies", 3), ("the fast one fails", 3), ("a third comes and goes", 1)]
)
def test_slow_replica_has_one_lane_beside_a_fast_one(event: str, lanes: int) -> None:
    pool = Told(3, 3, 1, batch_items=1)
    slow, fast, third = pool.replicas
    third.down("connection refused", gone=True)
    for seconds, replica in ((1.0, slow), (0.01, fast)):
        for _ in range(BATCHES_UNTIL_JUDGED):
            replica.pace.observe(1, seconds)
    pool.ask(6)
    assert (slow.lanes_in_use, fast.lanes_in_use) == (3, 3)
    pool.now = 1.0
    pool.done(slow)
    pool.done(slow)
    pool.ask(6)
    assert slow.lanes_in_use == 1
    match event:
        case "the fast one dies":
            fast.down("connection refused", gone=True)
        case "the fast one fails":
            for _ in range(FAILURES_UNTIL_OPEN):
                fast.breaker.failed(pool.now, pool.now)
            pool.done(slow)
        case _:
            third.up(info("retrieval"))
            third.down("connection refused", gone=True)
    assert slow.lanes_in_use == lanes


def test_all_failed_batch_is_no_success_or_failure() -> None:
    """A dead engine fails fast, and must not look fast. Its batch is tried elsewhere."""
    pool = Told(2)
    pool.ask()
    pool.failed()
    for _ in range(10):
        pool.ask(2)
        assert pool.replica.lanes_in_use == 1
        pool.done(failing_after=0)
        assert (pool.replica.breaker.failures, pool.replica.successes, pool.replica.sound) == (1, 0, False)
        assert pool.replica.pace.seconds_per_token == 0
    pool.done()
    assert pool.replica.sound


def test_open_breaker_lets_one_batch_try() -> None:
    pool = Told(4, batch_items=1)
    for _ in range(8):
        pool.ask()
    while pool.replica.breaker.state(pool.now) is not BreakerState.OPEN:
        pool.now += 1.0
        pool.failed()
    sent = len(pool.started)
    pool.dispatch()
    assert len(pool.started) == sent
    with pytest.raises(Unavailable) as refused:
        pool.check_room(make_request([1]).items, pool.now, NEVER)
    assert (refused.value.retry_after or 0) >= 1
    pool.now = pool.replica.breaker.open_until
    pool.dispatch()
    assert len(pool.started) == sent + 1
    pool.done()
    assert pool.replica.breaker.state(pool.now) is BreakerState.CLOSED
    assert pool.replica.lanes_in_use > 1
