"""Deadlines, full queues, pools without replicas: who is refused, how, and that nothing stays behind."""

import asyncio
import base64

import pytest

from router.pool.replica import State
from tests.fakes.router import eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers


@pytest.mark.parametrize("mode", ["hanging", "hanging in the body"])
@pytest.mark.parametrize("by_header", [True, False])
async def test_deadline_returns_504_and_cancels_worker(mode: str, by_header: bool) -> None:
    worker = FakeWorker()
    worker.mode = mode  # type: ignore[assignment]
    seconds = 60.0 if by_header else 0.5
    headers = {"x-request-timeout-seconds": "0.5"} if by_header else None
    async with (
        fake_workers(worker),
        running_router(worker, request_timeout_seconds=seconds) as router,
    ):
        reply = await router.ask(["a", "b"], headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")
        await worker.until_left(1)
        await router.until_idle()
        worker.mode = "healthy"
        reply = await router.ask(["c"], headers={"x-request-timeout-seconds": "60"})
        assert reply.status_code == 200


async def test_deadline_in_queue_sends_nothing() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker, lanes=1) as router:
        worker.script.append("held")
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        reply = await router.ask(["late"], headers={"x-request-timeout-seconds": "0.05"})
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")
        worker.gate.set()
        assert (await first).status_code == 200
        assert len(worker.items) == 1
        await router.until_idle()


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf", "3601"])
async def test_invalid_deadline_returns_422(value: str) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as router:
        reply = await router.ask(["a"], headers={"x-request-timeout-seconds": value})
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == "header -> x-request-timeout-seconds"


async def test_full_queue_returns_429() -> None:
    worker = FakeWorker()
    settings = {"lanes": 1, "queue_items": 8, "max_items": 8, "max_pdf_pages": 8}
    async with fake_workers(worker), running_router(worker, **settings) as router:
        worker.script.append("held")
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        waits = asyncio.create_task(router.ask([f"waits {number}" for number in range(6)]))
        pool = router.fleet.pools["retrieval"]
        await eventually(lambda: pool.queue.items == 6)
        reply = await router.ask([f"too much {number}" for number in range(3)])
        assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
        assert int(reply.headers["retry-after"]) > 0
        assert pool.queue.items == 6
        fits = asyncio.create_task(router.ask(["fits", "too"]))
        await eventually(lambda: pool.queue.items == 8)
        worker.gate.set()
        replies = await asyncio.gather(first, waits, fits)
        assert {reply.status_code for reply in replies} == {200}
        assert not any("too much" in item.content.text for item in worker.items)  # type: ignore[union-attr]
        await router.until_idle()


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


async def test_no_ready_worker_returns_503() -> None:
    worker = FakeWorker()
    await worker.start()
    await worker.die()
    async with running_router(worker, wait=False) as router:
        reply = await router.ask(["a"])
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(reply.headers["retry-after"]) > 0
        assert (await router.client.get("/health")).status_code == 200
        assert (await router.client.get("/ready")).status_code == 503
        async with fake_workers(worker):
            await router.until_state(worker, State.READY)
            assert (await router.client.get("/ready")).status_code == 200
            assert (await router.ask(["a"])).status_code == 200


async def test_unserved_pool_returns_503() -> None:
    worker = FakeWorker("retrieval")
    async with fake_workers(worker), running_router(worker) as router:
        reply = await router.post(input=["a"], task="code.query")
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "code" in reply.json()["detail"]


async def test_interactive_overtakes_bulk() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker, lanes=1, batch_items=2) as router:
        worker.script.append("held")
        asked = [asyncio.create_task(router.ask(["first"]))]
        await worker.until_batches(1)
        pool = router.fleet.pools["retrieval"]
        asked.append(asyncio.create_task(router.ask(["bulk"] * 6, headers={"x-priority": "bulk"})))
        await eventually(lambda: pool.queue.items == 6)
        asked.append(asyncio.create_task(router.ask(["quick"] * 2, headers={"x-priority": "interactive"})))
        await eventually(lambda: pool.queue.items == 8)
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        sent = [(batch.priority, {item.content.text for item in batch.items}) for batch in worker.batches]  # type: ignore[union-attr]
        assert sent[1] == (0, {"quick"})
        assert set(map(str, sent[2:])) == {str((1, {"bulk"}))}
        await router.until_idle()


async def test_lanes_bound_batches_in_flight() -> None:
    worker = FakeWorker()
    worker.mode = "held"
    async with fake_workers(worker), running_router(worker, lanes=3, batch_items=1) as router:
        asked = [asyncio.create_task(router.ask([f"text {number}"])) for number in range(10)]
        await worker.until_batches(3)
        await eventually(lambda: router.fleet.pools["retrieval"].queue.items == 7)
        assert len(worker.batches) == 3
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        await router.until_idle()


async def test_full_queue_refuses_unread_body() -> None:
    worker = FakeWorker()
    worker.mode = "held"
    settings = {"lanes": 1, "queue_items": 8, "max_items": 8, "max_pdf_pages": 8}
    async with fake_workers(worker), running_router(worker, **settings) as router:
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        waiting = asyncio.create_task(router.ask([f"text {number}" for number in range(8)]))
        queue = router.fleet.pools["retrieval"].queue
        await eventually(lambda: queue.items == 8)
        url = router.client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: " in head.lower()
        writer.close()
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(first, waiting)} == {200}
        assert (await router.ask(["next"])).status_code == 200
        await router.until_idle()


async def test_large_images_arrive_whole() -> None:
    """A body of many pieces on both sides of the router."""
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as router:
        size = (56).to_bytes(4, "big")
        data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + size + bytes(range(256)) * 20_000
        reply = await router.post(input=[{"image": base64.b64encode(data).decode()}] * 3)
        assert reply.status_code == 200
        assert [item.content.data for item in worker.items] == [data] * 3  # type: ignore[union-attr]
