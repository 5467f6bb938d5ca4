"""Replicas that fail or are slow beside one that is good: how little they are given, and how they return."""

import asyncio
import math
import time
from collections.abc import Callable

import pytest

from router.pool import breaker
from router.pool.breaker import BreakerState
from tests.fakes.hang_guard import hang_guard
from tests.fakes.load import OpenLoop
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers

OPEN_SECONDS = 0.05


@pytest.fixture
def quick_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OPEN_SECONDS", OPEN_SECONDS)


def state(router: RunningRouter, worker: FakeWorker) -> BreakerState:
    return router.replica(worker).breaker.state(time.monotonic())


async def in_bursts(router: RunningRouter, condition: Callable[[], bool]) -> None:
    """Ask so much at a time that every replica is needed, again and again until `condition` holds."""
    async with hang_guard():
        while not condition():
            replies = await asyncio.gather(*(router.ask([f"text {number}"]) for number in range(20)))
            assert {reply.status_code for reply in replies} == {200}


async def test_open_breaker_backs_off_trials(
    quick_trials: None,
) -> None:
    bad, good = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    bad.mode = "error"
    async with fake_workers(bad, good), running_router(bad, good, batch_items=1) as router:
        load = OpenLoop(router, 2)
        await eventually(lambda: state(router, bad) is BreakerState.OPEN)
        opened, before = time.monotonic(), len(bad.batches)
        await load.answered(200)
        # One when the first pause is over, and then one for each time that the pause has doubled.
        trials = 1 + math.log2(1 + (time.monotonic() - opened) / OPEN_SECONDS)
        assert 1 <= len(bad.batches) - before <= trials
        bad.mode = "healthy"
        await eventually(lambda: state(router, bad) is BreakerState.CLOSED)
        before = len(bad.batches)
        await load.answered(50)
        assert set(await load.stop()) == {"ok"}
        await in_bursts(router, lambda: len(bad.batches) > before)
        await router.until_idle()


async def test_half_open_breaker_sends_one_batch(quick_trials: None) -> None:
    bad, good = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    bad.mode = "error"
    async with fake_workers(bad, good), running_router(bad, good, batch_items=1) as router:
        load = OpenLoop(router)
        await eventually(lambda: state(router, bad) is BreakerState.OPEN)
        bad.mode, before = "held", len(bad.batches)
        await bad.until_batches(before + 1)
        await load.answered(100)
        assert len(bad.batches) == before + 1
        bad.gate.set()
        assert set(await load.stop()) == {"ok"}
        assert state(router, bad) is BreakerState.CLOSED
        await router.until_idle()


async def test_overload_does_not_open_breaker() -> None:
    busy, good = FakeWorker(), FakeWorker()
    busy.mode = "overloaded"
    async with fake_workers(busy, good), running_router(busy, good, batch_items=1) as router:
        await in_bursts(router, lambda: len(busy.batches) > breaker.FAILURES_UNTIL_OPEN)
        assert state(router, busy) is BreakerState.CLOSED
        assert router.replica(busy).breaker.failures == 0
        await router.until_idle()


async def test_open_breaker_of_only_replica_returns_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 3.0)
    worker = FakeWorker()
    worker.script.extend(["held", *["error"] * breaker.FAILURES_UNTIL_OPEN])  # type: ignore[list-item]
    async with fake_workers(worker), running_router(worker, lanes=1, batch_items=1) as router:
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        pool = router.fleet.pools["retrieval"]
        fails = asyncio.create_task(router.ask(["fails"]))
        await eventually(lambda: pool.queue.items == 1)
        waits = asyncio.create_task(router.ask(["waits"]))
        await eventually(lambda: pool.queue.items == 2)
        worker.gate.set()
        assert (await first).status_code == 200
        assert (await fails).status_code == 500
        assert state(router, worker) is BreakerState.OPEN
        reply = await router.ask(["new"])
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(reply.headers["retry-after"]) > 0
        assert (await router.client.get("/ready")).status_code == 503
        assert not waits.done()
        assert (await waits).status_code == 200
        assert state(router, worker) is BreakerState.CLOSED
        assert (await router.ask(["new"])).status_code == 200
        await router.until_idle()


async def test_flaky_replica_causes_no_errors() -> None:
    flaky, good = FakeWorker(dimensions=64, seed=4), FakeWorker(dimensions=64)
    flaky.mode = "flaky"
    async with fake_workers(flaky, good), running_router(flaky, good, batch_items=1) as router:
        await in_bursts(router, lambda: len(flaky.batches) >= 30)
        await router.until_idle()


async def test_slow_replica_gets_one_batch_at_a_time() -> None:
    slow, good = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    # Beside this it is of no matter how quick the good one is.
    slow.mode, slow.delay = "slow", 0.3
    async with fake_workers(slow, good), running_router(slow, good, batch_items=1) as router:
        replica = router.replica(slow)
        await in_bursts(router, lambda: replica.pace.slow)
        assert not router.replica(good).pace.slow
        slow.mode, before = "held", len(slow.batches)
        asked = [asyncio.create_task(router.ask([f"text {number}"])) for number in range(50)]
        await eventually(lambda: sum(task.done() for task in asked) == len(asked) - 1)
        assert len(slow.batches) == before + 1
        slow.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        slow.mode = "healthy"
        await in_bursts(router, lambda: not replica.pace.slow)
        await router.until_idle()
