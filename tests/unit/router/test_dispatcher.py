"""Decisions of a pool over time, without tasks or timers."""

from collections.abc import Iterator

import pytest

from tests.unit.router.apps import info
from tests.unit.router.items import make_item, make_request, vector
from triptych.router.errors import CrashesWorker, QueueFull, TimedOut
from triptych.router.items import Batch, Job
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.call import ConnectionLost, Overloaded
from triptych.router.pool.dispatcher import QUERIES_SECONDS, Dispatcher
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import LONGEST_PAUSE_SECONDS, Replica
from triptych.router.pool.retry_budget import SMALLEST_CAPACITY

HOLD_SECONDS = 10.0


@pytest.fixture
def replica() -> Replica:
    ready = Replica("r:1", "retrieval", 4)
    ready.up(info("retrieval"))
    return ready


@pytest.fixture
def dispatcher(replica: Replica) -> Iterator[Dispatcher]:
    observer = PoolObserver(Metrics(), "retrieval", None, lambda: 0.0)
    queue = PoolQueue(10**6, 10**6)
    pool = Dispatcher("retrieval", [replica], queue, 10**6, 1, observer, 0.0, HOLD_SECONDS)
    yield pool
    assert not queue.items
    assert not pool.in_flight


def ask(dispatcher: Dispatcher, items: int = 1, *, bulk: bool = False, now: float = 0.0) -> Job:
    def finished(job: Job) -> None:
        if job.error is not None:
            dispatcher.forget(job.items, now)

    job = make_request([1] * items, bulk=bulk, finished=finished)
    dispatcher.admit(job.items, now)
    return job


def start(dispatcher: Dispatcher, now: float = 0.0) -> tuple[Replica, Batch]:
    """The next batch, and its replica."""
    found = dispatcher.next(now)
    assert found is not None
    return found


def finish(dispatcher: Dispatcher, replica: Replica, batch: Batch, now: float = 0.0) -> None:
    """Deliver the results of a batch."""
    for item in list(batch.items):
        dispatcher.deliver(batch, item, vector(item), now)
    dispatcher.answered(replica, batch, 1, 0.0, now)
    dispatcher.ended(replica, batch, now)


def test_bulk_gets_more_lanes_when_queries_stop(dispatcher: Dispatcher) -> None:
    query = ask(dispatcher)
    bulk = ask(dispatcher, 2, bulk=True)
    batches = [start(dispatcher), start(dispatcher)]
    assert dispatcher.next(0.0) is None
    end = dispatcher.wake_at(0.0)
    assert end == QUERIES_SECONDS
    batches.append(start(dispatcher, end))
    for replica, batch in batches:
        finish(dispatcher, replica, batch, end)
    assert query.vectors()
    assert len(bulk.vectors()) == 2


def test_hopeless_deadline_is_refused(dispatcher: Dispatcher) -> None:
    ask(dispatcher, 1000)
    ask(dispatcher, 1000, bulk=True)
    for step in range(1, 51):
        dispatcher.queue.drained(make_item(10), step / 10)
    hurried = make_request([1]).items
    dispatcher.check_room(hurried, 5.0, deadline=60.0)
    dispatcher.check_any_room(5.0, deadline=60.0)
    with pytest.raises(QueueFull):
        dispatcher.check_room(hurried, 5.0, deadline=6.0)
    with pytest.raises(QueueFull):
        dispatcher.check_any_room(5.0, deadline=6.0)
    dispatcher.remove(5.0)


def test_refused_bulk_does_not_delay_queries(dispatcher: Dispatcher) -> None:
    bulk = ask(dispatcher, bulk=True)
    replica, batch = start(dispatcher)
    dispatcher.declined(replica, batch, Overloaded(1e9), 0.0)
    assert (replica.breaker.failures, batch.items[0].tries) == (0, 0)
    dispatcher.ended(replica, batch, 0.0)
    query = ask(dispatcher)
    replica, batch = start(dispatcher)
    assert batch.items == query.items
    assert dispatcher.next(0.0) is None
    assert dispatcher.wake_at(0.0) == LONGEST_PAUSE_SECONDS
    for job in (bulk, query):
        job.fail(TimedOut("its client has left"), 0.0)
    dispatcher.ended(replica, batch, 0.0)


def die(dispatcher: Dispatcher, instance: str, leaving: Job | None = None) -> None:
    """Start a batch with which `instance` dies, after the client of `leaving` has left."""
    replica, batch = start(dispatcher)
    if leaving is not None:
        leaving.fail(TimedOut("its client has left"), 0.0)
    dispatcher.put_back_failed(batch, ConnectionLost("lost"), instance, 0.0)
    dispatcher.ended(replica, batch, 0.0)


def test_death_counts_after_the_client_has_left(dispatcher: Dispatcher) -> None:
    die(dispatcher, "one", leaving=ask(dispatcher))
    again = ask(dispatcher)
    die(dispatcher, "two")
    assert isinstance(again.error, CrashesWorker)


def test_batches_of_removed_replicas_can_all_be_retried(dispatcher: Dispatcher) -> None:
    """The pool has no lanes any more, which bound its retry budget."""
    replicas = [Replica(f"r:{number}", "retrieval", 4) for number in range(2 * SMALLEST_CAPACITY)]
    dispatcher.set_replicas(replicas, 0.0)
    for one in replicas:
        one.up(info("retrieval"))
    job = ask(dispatcher, len(replicas))
    started = [start(dispatcher) for _ in replicas]
    dispatcher.set_replicas([], 0.0)
    for replica, batch in started:
        dispatcher.put_back_failed(batch, ConnectionLost("lost"), None, 0.0)
        dispatcher.ended(replica, batch, 0.0)
    assert len(dispatcher.queue.waiting()) == len(job.items)
    dispatcher.remove(0.0)


def test_success_clears_a_suspect(dispatcher: Dispatcher) -> None:
    for instance in ("one", "two", "three"):
        job = ask(dispatcher)
        die(dispatcher, instance)
        finish(dispatcher, *start(dispatcher))
        assert job.vectors()
