"""Who is given what, and when: one rule at a time, with replicas that do as they are told."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import pytest

from router.errors import TimedOut
from router.items import Batch, Item, Job
from router.pool.breaker import FAILURES_UNTIL_OPEN
from router.pool.call import Deliver, ReplicaFailed
from router.pool.pace import BATCHES_UNTIL_JUDGED
from router.pool.pool import Clock, Pool
from router.pool.queue import PoolQueue
from router.pool.replica import Replica
from router.pool.retry_budget import SMALLEST_CAPACITY
from tests.unit.router.apps import info
from tests.unit.router.items import encode, make_request, vector
from workers.shared import contract


class Hand:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told(Replica):
    """Keeps each batch until a test ends it."""

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
        """It does the first batch that it has."""
        batch = self.batches[len(self.batches) - len(self._ends)]
        self._ends.popleft().set_result([vector(item) for item in batch.items])
        await turns()

    async def failed(self) -> None:
        """It fails at the first batch that it has."""
        self._ends.popleft().set_exception(ReplicaFailed("told to"))
        await turns()

    async def failed_inside(self, *, but: int = 0) -> None:
        """It says of each item of the first batch that it has, `but` so many, that it failed inside."""
        batch = self.batches[len(self.batches) - len(self._ends)]
        frames = [contract.Failure(0, "internal", "told to") for _ in batch.items]
        self._ends.popleft().set_result([*map(vector, batch.items[:but]), *frames[but:]])
        await turns()


async def turns() -> None:
    """Let everything happen that happens by itself."""
    for _ in range(10):
        await asyncio.sleep(0)


class MakePool(Protocol):
    """Makes a pool of `replicas`, which are ready."""

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
    """A request that has had its chance to be handed out."""

    def finished(job: Job) -> None:
        if job.error is not None:
            pool.forget(job.items)

    request = make_request([1] * items, bulk=bulk, finished=finished)
    pool.admit(request.items)
    await turns()
    return request


@pytest.fixture
async def waiting(make_pool: MakePool) -> tuple[Pool, Told, Told, Job]:
    """What failed at the second replica waits for the first, which is sound and busy."""
    sound, failing = Told("sound:1"), Told("failing:1")
    pool = make_pool(sound, failing)
    await asked(pool)
    request = await asked(pool)
    assert failing.last == request.items
    await failing.failed()
    assert pool.queue.waiting() == request.items
    return pool, sound, failing, request


async def test_what_waits_for_a_sound_replica_keeps_its_place_and_holds_up_nothing(
    waiting: tuple[Pool, Told, Told, Job],
) -> None:
    pool, sound, failing, first = waiting
    second = await asked(pool)
    assert failing.last == second.items
    assert pool.queue.waiting() == first.items
    third = await asked(pool)
    assert pool.queue.waiting() == [*first.items, *third.items]
    await sound.done()
    assert sound.last == [*first.items, *third.items]


async def test_when_that_which_held_up_others_leaves_they_go_on(
    waiting: tuple[Pool, Told, Told, Job],
) -> None:
    pool, _, failing, query = waiting
    # Bulk has no turn while a query waits.
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
    """A slow replica that has a batch, and a fast one beside it."""
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


async def test_a_slow_replica_that_is_left_alone_has_all_its_lanes_at_once(
    unequal: tuple[Pool, Told, Told, Hand],
) -> None:
    _, slow, fast, _ = unequal
    fast.down("connection refused", gone=True)
    assert not slow.pace.slow
    assert slow.lanes_in_use == 3


async def test_a_slow_replica_is_held_against_none_that_keeps_failing(
    unequal: tuple[Pool, Told, Told, Hand],
) -> None:
    _, slow, fast, clock = unequal
    for _ in range(FAILURES_UNTIL_OPEN):
        fast.breaker.failed(clock.now, clock.now)
    await slow.done()
    assert slow.lanes_in_use == 3


async def test_a_slow_replica_stays_slow_while_one_that_is_faster_is_ready(
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
async def test_items_that_fail_together_cost_the_pool_one_retry(make_pool: MakePool, done: int) -> None:
    replica = Told("r:1")
    pool = make_pool(replica, batch_items=10 * SMALLEST_CAPACITY)
    request = await asked(pool, 5 * SMALLEST_CAPACITY)
    await replica.failed_inside(but=done)
    assert replica.last == request.items[done:]
    await replica.done()
    assert request.vectors() == [vector(item) for item in request.items]


async def test_a_replica_that_does_nothing_of_a_batch_is_not_what_it_is_tried_again_at(
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


async def test_a_batch_of_which_nothing_is_done_is_neither_a_success_nor_a_failure(
    make_pool: MakePool,
) -> None:
    """A dead engine is quick to say so, and must not look fast; an item may be what no engine can do."""
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
