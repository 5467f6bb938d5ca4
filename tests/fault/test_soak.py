"""Soak: a router among misbehaving workers and clients stays correct and does not leak.

SOAK_SECONDS sets the duration; `make soak` takes minutes.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.frames import FAILING, Mode
from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.load import MOST_OPEN
from tests.fakes.process import Process, router_process
from tests.fakes.router import check
from tests.fakes.worker import FakeWorker, fake_workers
from tests.processes import Watch, thirds

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = 1
WARM_UP_SECONDS = 4.0
EVERY_SECONDS = 0.005
SAMPLE_SECONDS = 0.05
ALLOWED = {200, 429, 500, 503, 504}
# Allowed growth: the allocator in the first minutes, and connections to restarted workers.
RSS_SHARE, RSS_BYTES, DESCRIPTORS = 0.10, 8 << 20, 12

MODES: list[Mode] = [*FAILING, "slow", "flaky", "overloaded", "same index twice"]
# These are zero in an idle router.
GAUGES = {
    "triptych_router_queue_items",
    "triptych_router_queue_tokens",
    "triptych_router_replica_batches_in_flight",
    "triptych_router_replica_tokens_in_flight",
    "triptych_router_requests_in_flight",
}


class Clients:
    """Requests that do not wait for earlier replies, up to `MOST_OPEN`; some clients leave early."""

    def __init__(self, router: Process, seed: int) -> None:
        self.outcomes: Counter[int] = Counter()
        self.left = 0
        self._random = random.Random(seed)
        self._url = router.client.base_url

    async def run(self, seconds: float) -> None:
        """Send for `seconds`, and wait for all replies. Raises the exception of a failed request."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        ends = asyncio.get_running_loop().time() + seconds
        number = 0
        # A slow machine builds no backlog.
        room = asyncio.Semaphore(MOST_OPEN)
        async with (
            httpx.AsyncClient(
                base_url=self._url, timeout=GUARD_SECONDS, limits=limits, trust_env=False
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            while asyncio.get_running_loop().time() < ends:
                number += 1
                await room.acquire()
                size = self._random.choice((1, 1, 1, 4, 50))
                texts = [f"text {number % 500} {index}" for index in range(size)]
                patience = self._random.uniform(0, 0.05) if self._random.random() < 0.1 else GUARD_SECONDS
                task = group.create_task(self._ask(client, texts, patience))
                task.add_done_callback(lambda _: room.release())
                await asyncio.sleep(EVERY_SECONDS)

    async def _ask(self, client: httpx.AsyncClient, texts: list[str], patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                reply = await client.post("/v1/embeddings", json={"input": texts, "task": "retrieval.query"})
        except TimeoutError:
            assert patience < GUARD_SECONDS, "a request hangs"
            self.left += 1
            return
        self.outcomes[reply.status_code] += 1
        # Workers are killed at random, so two may die with the same input.
        blamed = reply.status_code == 400 and reply.json()["code"] == "INPUT_CRASHES_WORKER"
        assert blamed or reply.status_code in ALLOWED, reply.text
        if reply.status_code == 200:
            check(reply, texts)


async def misbehave(workers: list[FakeWorker], seed: int) -> None:
    """Make one of `workers` misbehave for a moment, or kill it, until cancelled."""
    chance = random.Random(seed)
    while True:
        worker = chance.choice(workers)
        if chance.random() < 0.15:
            await worker.die()
            await asyncio.sleep(chance.uniform(0, 0.3))
            await worker.start()
        else:
            worker.mode = chance.choice(MODES)
        await asyncio.sleep(chance.uniform(0.05, 0.5))
        worker.mode = chance.choice(["healthy", "healthy", "healthy", "flaky"])
        await asyncio.sleep(chance.uniform(0, 0.3))


@asynccontextmanager
async def meanwhile(endless: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `endless` during the block; fails if it has failed."""
    task = asyncio.create_task(endless)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def gauges(router: Process) -> float:
    """The sum of `GAUGES`."""
    families = text_string_to_metric_families((await router.client.get("/metrics")).text)
    found = [family for family in families if family.name in GAUGES]
    assert {family.name for family in found} == GAUGES
    return sum(sample.value for family in found for sample in family.samples)


async def until_idle(router: Process) -> None:
    async with hang_guard():
        while await gauges(router):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_router_survives_faults_without_leaks() -> None:
    workers = [FakeWorker(dimensions=64, seed=number) for number in range(2)]
    settings = {
        "ROUTER_WORKER_TIMEOUT_SECONDS": "0.3",
        "ROUTER_REQUEST_TIMEOUT_SECONDS": "5",
        "ROUTER_LOG_LEVEL": "error",
    }
    async with fake_workers(*workers), router_process(*workers, **settings) as router:
        await router.until_it_answers("/ready")
        watched = psutil.Process(router.process.pid)
        watch = Watch(router.process.pid, SAMPLE_SECONDS)
        clients = Clients(router, SEED)
        async with meanwhile(misbehave(workers, SEED)):
            await clients.run(WARM_UP_SECONDS)
            await until_idle(router)
            before = watched.num_fds()
            async with meanwhile(watch.run()):
                await clients.run(SECONDS)
        await until_idle(router)
        for worker in workers:
            worker.mode = "healthy"
        await router.until_it_answers("/ready")
        for number in range(20):
            check(await router.ask(f"text {number}"), [f"text {number}"])
        after = watched.num_fds()
        first, last = thirds(watch.resident)
        print(
            f"{dict(clients.outcomes)}, {clients.left} left; descriptors {before} and {after}; "
            f"resident {first / 2**20:.1f} and {last / 2**20:.1f} MiB"
        )
        assert clients.outcomes[200]
        assert clients.left
        assert after <= before + DESCRIPTORS
        assert last <= first * (1 + RSS_SHARE) + RSS_BYTES
