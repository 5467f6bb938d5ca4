"""Clients that disconnect: their work is dropped."""

import asyncio
import contextlib

import pytest

from tests.fakes.router import eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers


async def leave(*asked: "asyncio.Task[object]") -> None:
    """Close the clients' connections."""
    for task in asked:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("mode", ["hanging", "hanging in the body"])
async def test_worker_request_is_cancelled(mode: str) -> None:
    async with one_worker(mode) as (router, worker):
        asked = asyncio.create_task(router.ask(["a", "b"]))
        await worker.until_batches(1)
        await leave(asked)
        await worker.until_left(1)
        await router.until_idle()
        worker.mode = "healthy"
        assert (await router.ask(["c"])).status_code == 200


async def test_waiting_items_are_dropped() -> None:
    async with one_worker(lanes=1) as (router, worker):
        worker.script.append("held")
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        gone = asyncio.create_task(router.ask(["gone"] * 5))
        await eventually(lambda: router.waiting_items == 5)
        await leave(gone)
        await eventually(lambda: router.waiting_items == 0)
        worker.gate.set()
        assert (await first).status_code == 200
        assert len(worker.items) == 1
        await router.until_idle()


async def test_shared_batch_goes_on() -> None:
    async with one_worker(lanes=1) as (router, worker):
        worker.script.extend(["held", "held"])
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        stays = asyncio.create_task(router.ask(["stays"]))
        goes = asyncio.create_task(router.ask(["goes"]))
        await eventually(lambda: router.waiting_items == 2)
        worker.gate.set()
        worker.gate.clear()
        await worker.until_batches(2)
        assert len(worker.batches[1].items) == 2
        await leave(goes)
        worker.gate.set()
        assert (await first).status_code == 200
        assert (await stays).status_code == 200
        assert worker.left == 0
        await router.until_idle()


async def test_all_pools_are_cancelled() -> None:
    workers = [FakeWorker("retrieval"), FakeWorker("code"), FakeWorker("text-matching")]
    async with fake_workers(*workers), running_router(*workers) as router:
        for worker in workers:
            worker.mode = "hanging"
        items = [{"text": "a", "task": task} for task in ("code.query", "retrieval.query", "text-matching")]
        asked = asyncio.create_task(router.post(input=items))
        for worker in workers:
            await worker.until_batches(1)
        await leave(asked)
        for worker in workers:
            await worker.until_left(1)
        await router.until_idle()


async def test_error_in_one_pool_cancels_the_others() -> None:
    code, retrieval = FakeWorker("code"), FakeWorker("retrieval")
    async with fake_workers(code, retrieval), running_router(code, retrieval) as router:
        retrieval.mode = "hanging"
        items = [{"text": "!token_limit", "task": "code.query"}, {"text": "a", "task": "retrieval.query"}]
        reply = await router.post(input=items)
        assert (reply.status_code, reply.json()["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
        await retrieval.until_left(1)
        await router.until_idle()


async def test_many_leaving_clients_leave_no_work() -> None:
    workers = [FakeWorker(), FakeWorker()]
    async with fake_workers(*workers), running_router(*workers, lanes=2, batch_items=2) as router:
        workers[0].mode = "held"
        workers[0].gate.set()
        stay, asked = [], []
        for number in range(100):
            task = asyncio.create_task(router.ask([f"text {number} {index}" for index in range(5)]))
            (asked if number % 2 else stay).append(task)
            if number % 3 == 0 and asked:
                await leave(asked.pop(0))
        assert {reply.status_code for reply in await asyncio.gather(*stay)} == {200}
        await leave(*asked)
        await router.until_idle()
