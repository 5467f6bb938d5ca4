"""Dispatch of a pool, one rule at a time, with replicas and a clock that the test controls."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import pytest

from tests.fakes.clock import skip
from tests.unit.router.apps import info
from tests.unit.router.items import NEVER, encode, make_request, vector
from triptych.router.errors import TimedOut, Unavailable
from triptych.router.items import Batch, Item, Job
from triptych.router.pool.breaker import FAILURES_UNTIL_OPEN, BreakerState
from triptych.router.pool.call import Deliver, ReplicaFailed
from triptych.router.pool.pace import BATCHES_UNTIL_JUDGED
from triptych.router.pool.pool import ABORT_SECONDS, Clock, Pool
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica
from triptych.router.pool.retry_budget import SHARE_OF_TRAFFIC, SMALLEST_CAPACITY
from triptych.workers.shared import contract


class Hand:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told(Replica):
    """A replica that keeps each batch until the test ends it."""

    def __init__(self, name: str, lanes: int = 1) -> None:
        super().__init__(name, "retrieval", lanes)
        self.batches: list[Batch] = []
        self._ends: deque[asyncio.Future[Sequence[contract.Frame]]] = deque()

    async def encode(self, batch: Batch, deliver: Deliver) -> None:
        end = asyncio.get_running_loop().create_future()
        self.batches.append(batch)
        self._ends.append(end)
        for item, frame in zip(batch.items, await end, strict=True):
            deliver(item, frame)

    @property
    def last(self) -> list[Item]:
        """The items of its last batch."""
        return self.batches[-1].items

    async def done(self) -> None:
        """Finish its oldest batch."""
        batch = self.batches[len(self.batches) - len(self._ends)]
        self._ends.popleft().set_result([vector(item) for item in batch.items])
        await turns()

    async def failed(self) -> None:
        """Fail its oldest batch."""
        self._ends.popleft().set_exception(ReplicaFailed("told to"))
        await turns()

    async def failed_inside(self, *, but: int = 0) -> None:
        """Answer its oldest batch: the first `but` items succeed, the others fail inside the engine."""
        batch = self.batches[len(self.batches) - len(self._ends)]
        frames = [contract.Failure(0, "internal", "told to") for _ in batch.items]
        self._ends.popleft().set_result([*map(vector, batch.items[:but]), *frames[but:]])
        await turns()


async def turns() -> None:
    """Run the event loop until nothing more happens."""
    for _ in range(10):
        await asyncio.sleep(0)


class MakePool(Protocol):
    """Makes a pool of ready `replicas`."""

    def __call__(self, *replicas: Replica, batch_items: int = 8, clock: Clock = lambda: 0.0) -> Pool: ...


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    pools = []

    def make(*replicas: Replica, batch_items: int = 8, clock: Clock = lambda: 0.0) -> Pool:
        pool = Pool("retrieval", replicas, PoolQueue(10**6, 10**6), encode, 10**6, batch_items, clock)
        pools.append(pool)
        for replica in replicas:
            replica.changed = pool.replicas_changed
            replica.up(info("retrieval"))
        return pool

    yield make
    for pool in pools:
        pool.remove()
        await pool.close()


async def asked(pool: Pool, items: int = 1, *, bulk: bool = False) -> Job:
    """A job that was admitted and, if possible, dispatched."""

    def finished(job: Job) -> None:
        if job.error is not None:
            pool.forget(job.items)

    request = make_request([1] * items, bulk=bulk, finished=finished)
    pool.admit(request.items)
    await turns()
    return request


@pytest.fixture
async def waiting(make_pool: MakePool) -> tuple[Pool, Told, Told, Job]:
    """A pool, its sound and busy replica, its failing one, and the failed job, which waits for the former."""
    sound, failing = Told("sound:1"), Told("failing:1")
    pool = make_pool(sound, failing)
    await asked(pool)
    request = await asked(pool)
    assert failing.last == request.items
    await failing.failed()
    assert pool.queue.waiting() == request.items
    return pool, sound, failing, request


async def test_cancelled_retry_unblocks_bulk(
    waiting: tuple[Pool, Told, Told, Job],
) -> None:
    pool, _, failing, query = waiting
    # Bulk gets no batch while a query waits.
    bulk = await asked(pool, bulk=True)
    assert pool.queue.waiting() == [*query.items, *bulk.items]
    query.fail(TimedOut("its client has left"), 0.0)
    await turns()
    assert failing.last == bulk.items


async def test_retry_goes_to_another_unsound_replica(make_pool: MakePool) -> None:
    failing, recovered = Told("failing:1"), Told("recovered:1")
    pool = make_pool(failing, recovered)
    recovered.breaker.failed(0.0, 0.0)
    request = await asked(pool)
    assert failing.last == request.items
    await failing.failed()
    assert recovered.last == request.items


async def test_closed_pool_starts_no_batch(make_pool: MakePool) -> None:
    replica = Told("r:1")
    pool = make_pool(replica)
    await asked(pool)
    await asked(pool)
    await pool.close()
    await turns()
    assert len(replica.batches) == 1


@pytest.fixture
async def unequal(make_pool: MakePool) -> tuple[Pool, Told, Told, Hand]:
    """A pool with a slow replica, a fast one and a clock; both are busy."""
    clock = Hand()
    slow, fast = Told("slow:1", 3), Told("fast:1", 3)
    pool = make_pool(slow, fast, batch_items=1, clock=clock)
    for seconds, replica in ((1.0, slow), (0.01, fast)):
        for _ in range(BATCHES_UNTIL_JUDGED):
            replica.pace.observe(1, seconds)
    await asked(pool, 6)
    assert (slow.lanes_in_use, fast.lanes_in_use) == (3, 3)
    clock.now = 1.0
    await slow.done()
    await slow.done()
    assert slow.pace.slow
    await asked(pool, 6)
    assert slow.lanes_in_use == 1
    return pool, slow, fast, clock


async def test_slow_only_replica_has_all_lanes(
    unequal: tuple[Pool, Told, Told, Hand],
) -> None:
    _, slow, fast, _ = unequal
    fast.down("connection refused", gone=True)
    assert not slow.pace.slow
    assert slow.lanes_in_use == 3


async def test_pace_ignores_failing_replicas(
    unequal: tuple[Pool, Told, Told, Hand],
) -> None:
    _, slow, fast, clock = unequal
    for _ in range(FAILURES_UNTIL_OPEN):
        fast.breaker.failed(clock.now, clock.now)
    await slow.done()
    assert slow.lanes_in_use == 3


async def test_slow_replica_stays_slow_beside_faster(
    unequal: tuple[Pool, Told, Told, Hand],
) -> None:
    pool, slow, fast, _ = unequal
    third = Told("third:1")
    pool.set_replicas([slow, fast, third])
    third.up(info("retrieval"))
    third.down("connection refused", gone=True)
    assert slow.pace.slow
    assert slow.lanes_in_use == 1


@pytest.mark.parametrize("done", [0, 5])
async def test_failed_batch_costs_one_retry(make_pool: MakePool, done: int) -> None:
    replica = Told("r:1")
    pool = make_pool(replica, batch_items=10 * SMALLEST_CAPACITY)
    request = await asked(pool, 5 * SMALLEST_CAPACITY)
    await replica.failed_inside(but=done)
    assert replica.last == request.items[done:]
    await replica.done()
    assert request.vectors() == [vector(item) for item in request.items]


async def test_all_failed_batch_is_retried_elsewhere(
    make_pool: MakePool,
) -> None:
    busy, dead = Told("busy:1"), Told("dead:1")
    pool = make_pool(busy, dead)
    await asked(pool)
    request = await asked(pool)
    await dead.failed_inside()
    assert pool.queue.waiting() == request.items
    await busy.done()
    assert busy.last == request.items


async def test_all_failed_batch_is_no_success_or_failure(
    make_pool: MakePool,
) -> None:
    """A dead engine fails fast, and must not look fast."""
    replica = Told("r:1", lanes=2)
    pool = make_pool(replica)
    await asked(pool)
    await replica.failed()
    for _ in range(10):
        await asked(pool, 2)
        assert replica.lanes_in_use == 1
        await replica.failed_inside()
        assert (replica.breaker.failures, replica.successes) == (1, 0)
        assert replica.pace.seconds_per_token == 0
    await replica.done()
    assert replica.sound


async def test_open_breaker_lets_one_batch_try(make_pool: MakePool) -> None:
    clock, replica = Hand(), Told("r:1", lanes=4)
    pool = make_pool(replica, batch_items=1, clock=clock)
    for _ in range(8):
        await asked(pool)
    while replica.breaker.state(clock.now) is not BreakerState.OPEN:
        clock.now += 1.0
        await replica.failed()
    sent = len(replica.batches)
    pool.dispatch()
    await turns()
    assert len(replica.batches) == sent
    with pytest.raises(Unavailable) as refused:
        pool.dispatcher.check_room(make_request([1]).items, clock.now, NEVER)
    assert (refused.value.retry_after or 0) >= 1
    clock.now = replica.breaker.open_until
    pool.dispatch()
    await turns()
    assert len(replica.batches) == sent + 1
    await replica.done()
    assert replica.breaker.state(clock.now) is BreakerState.CLOSED
    assert replica.lanes_in_use > 1


async def test_retries_are_bounded_when_all_fail(make_pool: MakePool) -> None:
    """The clock stands still, so time earns no retry."""
    replica = Told("r:1")
    pool = make_pool(replica)
    for _ in range(300):
        await asked(pool)
        while replica.lanes_in_use:
            await replica.failed_inside()
    sent = len(replica.batches)
    assert 0 < sent - 300 <= SMALLEST_CAPACITY + SHARE_OF_TRAFFIC * sent


async def test_call_goes_on_for_a_moment_without_its_client(make_pool: MakePool) -> None:
    """If the engine dies in the step in progress, the batch must still be known."""
    replica = Told("r:1")
    job = await asked(make_pool(replica))
    job.fail(TimedOut("its client has left"), 0.0)
    await turns()
    assert replica.lanes_in_use == 1
    skip(ABORT_SECONDS)
    await turns()
    assert replica.lanes_in_use == 0
