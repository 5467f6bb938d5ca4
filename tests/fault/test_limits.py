"""Deadlines and full queues: status codes, and no work left behind."""

import asyncio

import pytest

from tests.fakes.clock import skip
from tests.fakes.router import eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers


@pytest.mark.parametrize(("mode", "by_header"), [("hanging", True), ("hanging in the body", False)])
async def test_deadline_returns_504_and_cancels_worker(mode: str, by_header: bool) -> None:
    settings = {"request_timeout_seconds": 1000 if by_header else 100, "worker_timeout_seconds": 1000}
    headers = {"x-request-timeout-seconds": "100"} if by_header else None
    async with one_worker(mode, **settings) as (router, worker):
        asked = asyncio.create_task(router.ask(["a", "b"], headers=headers))
        await worker.until_batches(1)
        skip(100)
        reply = await asked
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")
        await worker.until_left(1)
        await router.until_idle()
        worker.mode = "healthy"
        reply = await router.ask(["c"], headers={"x-request-timeout-seconds": "60"})
        assert reply.status_code == 200


async def test_waiting_request_leaves_the_queue_at_its_deadline() -> None:
    patient = {"request_timeout_seconds": 1000, "worker_timeout_seconds": 1000}
    async with one_worker("held", lanes=1, **patient) as (router, worker):
        queue = router.fleet.pools["retrieval"].queue
        first = asyncio.create_task(router.ask(["a"]))
        await worker.until_batches(1)
        late = asyncio.create_task(router.ask(["b"], headers={"x-request-timeout-seconds": "100"}))
        await eventually(lambda: queue.items == 1)
        skip(100)
        reply = await late
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")
        assert queue.items == 0
        worker.gate.set()
        assert (await first).status_code == 200
        assert len(worker.batches) == 1


async def test_full_pool_refuses_the_whole_request() -> None:
    code, retrieval = FakeWorker("code"), FakeWorker("retrieval")
    settings = {"lanes": 1, "queue_items": 2, "max_items": 2, "max_pdf_pages": 2}
    async with fake_workers(code, retrieval), running_router(code, retrieval, **settings) as router:
        code.script.append("held")
        asked = [asyncio.create_task(router.post(input=["a"], task="code.query"))]
        await code.until_batches(1)
        asked.append(asyncio.create_task(router.post(input=["b", "c"], task="code.query")))
        await eventually(lambda: router.fleet.pools["code"].queue.items == 2)
        reply = await router.post(input=["d", {"text": "e", "task": "code.query"}])
        assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
        assert retrieval.batches == []
        code.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        await router.until_idle()


async def test_refused_requests_count_as_demand() -> None:
    small = {"lanes": 1, "batch_items": 1, "max_items": 2, "max_pdf_pages": 1, "queue_items": 2}
    async with one_worker("held", **small) as (router, worker):
        pool = router.fleet.pools["retrieval"]
        asked = [asyncio.create_task(router.ask(["a text"]))]
        await worker.until_batches(1)
        each = pool.requested_tokens
        assert each > 0
        asked.append(asyncio.create_task(router.ask(["a text"])))
        await eventually(lambda: pool.queue.items == 1)
        # One item has room, so this is refused only after it was read.
        assert (await router.ask(["a text", "a text"])).status_code == 429
        assert pool.requested_tokens == 4 * each
        asked.append(asyncio.create_task(router.ask(["a text"])))
        await eventually(lambda: pool.queue.items == 2)
        # Unread, it counts as the mean request so far: 5 texts in 4 requests.
        assert (await router.ask(["a text"])).status_code == 429
        assert pool.requested_tokens == pytest.approx(6.25 * each)
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        await router.until_idle()
