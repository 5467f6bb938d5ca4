"""Decisions of a pool over time, without tasks or timers."""

from collections.abc import Iterator

import pytest

from tests.unit.router.apps import info
from tests.unit.router.items import make_request, vector
from triptych.router.items import Job
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.dispatcher import QUERIES_SECONDS, Dispatcher
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica

HOLD_SECONDS = 10.0


@pytest.fixture
def replica() -> Replica:
    ready = Replica("r:1", "retrieval", 4)
    ready.up(info("retrieval"))
    return ready


@pytest.fixture
def dispatcher(replica: Replica) -> Iterator[Dispatcher]:
    observer = PoolObserver(Metrics().pool("retrieval"), None, lambda: 0.0)
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


def test_bulk_gets_more_lanes_when_queries_stop(dispatcher: Dispatcher) -> None:
    query = ask(dispatcher)
    bulk = ask(dispatcher, 2, bulk=True)
    batches = [dispatcher.next(0.0), dispatcher.next(0.0)]
    assert dispatcher.next(0.0) is None
    end = dispatcher.wake_at(0.0)
    assert end == QUERIES_SECONDS
    batches.append(dispatcher.next(end))
    for found in batches:
        assert found is not None
        replica, batch = found
        dispatcher.deliver(batch, batch.items[0], vector(batch.items[0]), end)
        dispatcher.answered(replica, batch, 1, 0.0, end)
        dispatcher.ended(replica, batch, end)
    assert query.vectors()
    assert len(bulk.vectors()) == 2
