"""The circuit breaker of a failing replica, in a running router."""

import asyncio
import time

import pytest

from tests.fakes.load import OpenLoop
from tests.fakes.router import RunningRouter, eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.pool import breaker
from triptych.router.pool.breaker import BreakerState


def state(router: RunningRouter, worker: FakeWorker) -> BreakerState:
    return router.replica(worker).breaker.state(time.monotonic())


async def test_open_breaker_gets_no_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "LONGEST_OPEN_SECONDS", 3600.0)
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 3600.0)
    bad, good = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    bad.mode = "error"
    async with fake_workers(bad, good), running_router(bad, good, batch_items=1) as router:
        load = OpenLoop(router, 2)
        await eventually(lambda: state(router, bad) is BreakerState.OPEN)
        await eventually(lambda: not router.replica(bad).lanes_in_use)
        before = len(bad.batches)
        await load.answered(200)
        assert len(bad.batches) == before
        assert set(await load.stop()) == {"ok"}
        await router.until_idle()


async def test_half_open_breaker_sends_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 0.05)
    bad, good = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    bad.mode = "error"
    async with fake_workers(bad, good), running_router(bad, good, batch_items=1) as router:
        load = OpenLoop(router)
        await eventually(lambda: state(router, bad) is BreakerState.OPEN)
        await eventually(lambda: not router.replica(bad).lanes_in_use)
        bad.mode, before = "held", len(bad.batches)
        await bad.until_batches(before + 1)
        await load.answered(100)
        assert len(bad.batches) == before + 1
        bad.gate.set()
        await eventually(lambda: state(router, bad) is BreakerState.CLOSED)
        assert set(await load.stop()) == {"ok"}
        await router.until_idle()


async def test_open_breaker_of_only_replica_returns_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "LONGEST_OPEN_SECONDS", 3600.0)
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 3600.0)
    async with one_worker(lanes=1, batch_items=1) as (router, worker):
        worker.script.extend(["held", *["error"] * breaker.FAILURES_UNTIL_OPEN])  # type: ignore[list-item]
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
        router.replica(worker).breaker.succeeded()
        pool.dispatch()
        assert (await waits).status_code == 200
        assert state(router, worker) is BreakerState.CLOSED
        assert (await router.ask(["new"])).status_code == 200
        await router.until_idle()
