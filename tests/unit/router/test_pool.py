"""Who is given what, and when: one rule at a time, with replicas that do as they are told."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from router.errors import TimedOut
from router.item import Batch, Gather, Item
from router.pool import Pool
from router.queue import PoolQueue
from router.replica import Replica, ReplicaFailed
from tests.unit.router.apps import info
from tests.unit.router.items import make_request, vector
from workers import contract


class Told(Replica):
    """Keeps each batch until a test ends it."""

    def __init__(self, name: str, lanes: int = 1, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(name, "retrieval", lanes, None, clock)  # type: ignore[arg-type]
        self.batches: list[Batch] = []
        self._ends: list[asyncio.Future[Sequence[contract.Frame]]] = []

    async def _encode(self, batch: Batch, deliver: Callable[[Item, contract.Frame], None]) -> None:
        end = asyncio.get_running_loop().create_future()
        self.batches.append(batch)
        self._ends.append(end)
        for item, frame in zip(batch.items, await end, strict=True):
            deliver(item, frame)

    @property
    def last(self) -> list[Item]:
        """The items of its last batch."""
        return self.batches[-1].items

    async def done(self, number: int = -1) -> None:
        """It does a batch, by default the last."""
        self._ends[number].set_result([vector(item) for item in self.batches[number].items])
        await turns()

    async def failed(self) -> None:
        """It fails at its last batch."""
        self._ends[-1].set_exception(ReplicaFailed("told to"))
        await turns()


async def turns() -> None:
    """Let everything happen that happens by itself."""
    for _ in range(10):
        await asyncio.sleep(0)


def pool_of(*replicas: Replica, batch_items: int = 8, clock: Callable[[], float] = lambda: 0.0) -> Pool:
    """A pool of `replicas`, which are ready."""
    pool = Pool("retrieval", replicas, PoolQueue(10**6, 10**6), 10**6, batch_items, clock)
    for replica in replicas:
        replica.changed = pool.replicas_changed
        replica.up(info("retrieval"))
    return pool


async def asked(pool: Pool, items: int = 1, *, bulk: bool = False) -> Gather:
    """A request that has had its chance to be handed out."""

    def finished(gather: Gather) -> None:
        if gather.error is not None:
            pool.forget(gather.items)

    request = make_request([1] * items, bulk=bulk, finished=finished)
    pool.admit(request.items)
    await turns()
    return request


@pytest.fixture
async def waiting() -> tuple[Pool, Told, Told, Gather]:
    """What failed at the second replica waits for the first, which is sound and busy."""
    sound, failing = Told("sound:1"), Told("failing:1")
    pool = pool_of(sound, failing)
    await asked(pool)
    request = await asked(pool)
    assert failing.last == request.items
    await failing.failed()
    assert pool.queue.waiting() == request.items
    return pool, sound, failing, request


async def test_what_waits_for_a_sound_replica_keeps_its_place_and_holds_up_nothing(
    waiting: tuple[Pool, Told, Told, Gather],
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
    waiting: tuple[Pool, Told, Told, Gather],
) -> None:
    pool, _, failing, query = waiting
    # Bulk has no turn while a query waits.
    bulk = await asked(pool, bulk=True)
    assert pool.queue.waiting() == [*query.items, *bulk.items]
    query.fail(TimedOut("its client has left"), 0.0)
    await turns()
    assert failing.last == bulk.items
