"""Pools without a ready replica: their work is held for a time, or refused."""

import asyncio

import httpx

from tests.fakes.load import OpenLoop
from tests.fakes.router import PATIENT, RunningRouter, eventually
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.documents import Document, discovering
from triptych.router.pool.replica import State

LONG = 600.0


def waiting(router: RunningRouter) -> int:
    return router.fleet.pools["retrieval"].queue.items


async def until_empty(router: RunningRouter) -> None:
    """Wait until the router knows the pool, and no replica of it."""
    await eventually(lambda: () in [pool.replicas for pool in router.fleet.pools.values()])


def check_refused(reply: httpx.Response) -> None:
    assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(reply.headers["retry-after"]) >= 1


async def test_scaling_to_zero_and_back_causes_no_errors(document: Document) -> None:
    worker = FakeWorker(dimensions=64)
    async with fake_workers(worker), discovering(document, worker, hold_seconds=LONG, **PATIENT) as router:
        await router.until_state(worker, State.READY)
        load = OpenLoop(router)
        for _ in range(2):
            await load.answered(30)
            document.name(empty=["retrieval"])
            await until_empty(router)
            await eventually(lambda: waiting(router) > 30)
            document.name(worker)
            await router.until_state(worker, State.READY)
        await load.answered(60)
        assert await load.stop() == {200}
        await router.until_idle()


async def test_removed_pool_refuses_held_work(document: Document) -> None:
    code, worker = FakeWorker("code"), FakeWorker()
    settings = {"lanes": 1, "hold_seconds": LONG}
    async with fake_workers(code, worker), discovering(document, code, worker, **settings) as router:
        await router.until_state(worker, State.READY)
        worker.mode = "held"
        given = asyncio.create_task(router.ask(["given"]))
        await worker.until_batches(1)
        document.name(code, empty=["retrieval"])
        await until_empty(router)
        held = asyncio.create_task(router.ask(["held"]))
        await eventually(lambda: waiting(router) == 1)
        document.name(code)
        check_refused(await held)
        assert list(router.fleet.pools) == ["code"]
        check_refused(await router.ask(["late"]))
        # No replica will ever take what it gives back.
        await worker.die()
        check_refused(await given)
        await router.until_idle()
