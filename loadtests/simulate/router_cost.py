"""What a request costs the real `Pool`, by how many replicas it has: measured here, HTTP left out."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from loadtests.simulate.router import VECTOR, WIRE, default
from router.items import Batch, Gather, Item
from router.pool.pool import Pool
from router.pool.queue import PoolQueue
from router.pool.replica import Replica, State
from router.pool.transport import WorkerClient
from workers.shared import contract


class _AtOnce(Replica):
    """Answers in the next turn of the event loop, and is judged as others are."""

    async def encode(self, batch: Batch, deliver: Callable[[Item, contract.Frame], None]) -> str:
        await asyncio.sleep(0)
        for item in batch.items:
            deliver(item, VECTOR)
        # Not all as fast, as in a deployment.
        self.pace.observe(batch.tokens, 0.06 + hash(self.address) % 100 / 1e4)
        return ""


def seconds_per_request(replicas: int, requests: int) -> float:
    """CPU seconds of the pool for one request that finds a free replica: from admission to its result."""
    return asyncio.run(_measure(replicas, requests))


async def _measure(count: int, requests: int) -> float:
    client = cast(WorkerClient, None)
    replicas = [_AtOnce(str(index), "retrieval", default("lanes"), client) for index in range(count)]
    for index, replica in enumerate(replicas):
        replica.state = State.READY
        for _ in range(5):
            replica.pace.observe(500, 0.06 + index % 100 / 1e4)
    pool = Pool(
        "retrieval",
        replicas,
        PoolQueue(default("queue_tokens"), default("queue_items")),
        default("batch_tokens"),
        default("batch_items"),
    )
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(requests):
            ended = asyncio.Event()
            finished = partial(_set, ended)
            deadline = time.monotonic() + 60
            item = Item("retrieval", WIRE, 500, 0, "input")
            Gather([item], time.monotonic(), deadline, finished)
            pool.check_any_room(deadline)
            pool.check_room([item], deadline)
            pool.admit([item])
            await ended.wait()
            await asyncio.gather(*pool.in_flight.values())
        best = min(best, (time.process_time() - began) / requests)
    return best


def _set(ended: asyncio.Event, gather: Gather) -> None:
    ended.set()
