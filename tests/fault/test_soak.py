"""Soak: a router among misbehaving workers and clients stays correct and does not leak.

SOAK_SECONDS sets the duration; `make soak` takes minutes.
"""

import asyncio
import os
import random

import psutil

from tests.fakes.frames import FAILING, Mode
from tests.fakes.hang_guard import eventually
from tests.fakes.process import Process, router_process
from tests.fakes.router import check
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.test_shared_metrics import page_when
from tests.metrics import Page
from tests.mixed_traffic import Traffic, kinds, meanwhile
from tests.processes import Watch, thirds

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = 1
WARM_UP_SECONDS = 4.0
REQUESTS_A_SECOND = 60
LONGEST_TEXT = 900
# The share of clients that leave early.
LEAVING = 0.1
SAMPLE_SECONDS = 0.05
# Workers are killed at random, so two may die with the same input.
FAILED = {"QUEUE_FULL", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "SERVICE_TIMEOUT", "INPUT_CRASHES_WORKER"}
ALLOWED = {"ok", "left"} | FAILED
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


async def until_idle(router: Process) -> None:
    def idle(page: Page) -> bool:
        found = [(name, count) for (name, _), count in page.items() if name in GAUGES]
        assert {name for name, _ in found} == GAUGES
        return not any(count for _, count in found)

    await page_when(router.client, idle)


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
        traffic = Traffic(str(router.client.base_url), kinds(LONGEST_TEXT), SEED, LEAVING)
        await traffic.learn()
        async with meanwhile(misbehave(workers, SEED)):
            await traffic.run(WARM_UP_SECONDS, REQUESTS_A_SECOND)
            await until_idle(router)
            before = watched.num_fds()
            async with meanwhile(watch.run()):
                await traffic.run(SECONDS, REQUESTS_A_SECOND)
        await until_idle(router)
        for worker in workers:
            worker.mode = "healthy"
        await router.until_it_answers("/ready")
        for number in range(20):
            check(await router.ask(f"text {number}"), [f"text {number}"])
        await traffic.close()
        first, last = thirds(watch.resident)
        print(f"{traffic.codes}; resident {first / 2**20:.1f} and {last / 2**20:.1f} MiB")
        assert traffic.wrong == []
        assert {"ok", "left"} <= traffic.codes.keys() <= ALLOWED, traffic.outcomes
        # Those of connections that were just closed go within seconds.
        await eventually(lambda: watched.num_fds() <= before + DESCRIPTORS)
        assert last <= first * (1 + RSS_SHARE) + RSS_BYTES
