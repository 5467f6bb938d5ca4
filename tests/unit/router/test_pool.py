"""What a pool does with its tasks and timers; test_dispatcher.py has its decisions."""

import asyncio

from tests.fakes.clock import skip
from tests.unit.router.apps import info
from tests.unit.router.items import dispatcher, make_request
from triptych.router.errors import TimedOut
from triptych.router.items import Batch, Job
from triptych.router.pool.call import Deliver, ReplicaFailed
from triptych.router.pool.pool import ABORT_SECONDS, Pool
from triptych.router.pool.replica import Replica


class Told(Pool):
    """Has ready replicas with one lane each. They answer nothing; batch number `failing` fails.

    `given` has the replica of each batch.
    """

    def __init__(self, *replicas: Replica, failing: int = 0) -> None:
        super().__init__(dispatcher(replicas, 10**6, 1), self._answer, lambda: 0.0)
        self.given: list[Replica] = []
        self._failing = failing
        for replica in replicas:
            replica.up(info("retrieval"))

    async def _answer(self, replica: Replica, batch: Batch, deliver: Deliver) -> None:
        self.given.append(replica)
        if len(self.given) == self._failing:
            raise ReplicaFailed("told to")
        await asyncio.Event().wait()

    async def ask(self, *, bulk: bool = False) -> Job:
        """A job that was admitted and, if possible, dispatched."""
        job = make_request([1], bulk=bulk, finished=lambda job: self.forget(job.items))
        self.admit(job.items)
        await turns()
        return job


async def turns() -> None:
    """Run the event loop until nothing more happens."""
    for _ in range(10):
        await asyncio.sleep(0)


def replica(name: str) -> Replica:
    return Replica(name, "retrieval", 1)


async def test_cancelled_retry_unblocks_bulk() -> None:
    sound, failing = replica("sound:1"), replica("failing:1")
    pool = Told(sound, failing, failing=2)
    await pool.ask()
    query = await pool.ask()
    # Bulk gets no batch while a query waits for a sound replica.
    await pool.ask(bulk=True)
    assert pool.given == [sound, failing]
    query.fail(TimedOut("its client has left"), 0.0)
    await turns()
    assert pool.given == [sound, failing, failing]
    await pool.close()


async def test_retry_goes_to_another_unsound_replica() -> None:
    failing, recovered = replica("failing:1"), replica("recovered:1")
    pool = Told(failing, recovered, failing=1)
    recovered.breaker.failed(0.0, 0.0)
    await pool.ask()
    assert pool.given == [failing, recovered]
    await pool.close()


async def test_closed_pool_starts_no_batch() -> None:
    pool = Told(one := replica("r:1"))
    for _ in range(2):
        await pool.ask()
    await pool.close()
    await turns()
    assert pool.given == [one]


async def test_call_goes_on_for_a_moment_without_its_client() -> None:
    """If the engine dies in the step in progress, the batch must still be known."""
    pool = Told(one := replica("r:1"))
    job = await pool.ask()
    job.fail(TimedOut("its client has left"), 0.0)
    await turns()
    assert one.lanes_in_use == 1
    skip(ABORT_SECONDS)
    await turns()
    assert one.lanes_in_use == 0
    await pool.close()
