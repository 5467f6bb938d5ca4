"""Overload: bounded retries, early refusals, and the share of bulk."""

import asyncio
from collections import Counter

import pytest

from tests.fakes.load import OpenLoop
from tests.fakes.router import eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.pool import breaker, dispatcher, retry_budget
from triptych.router.pool.dispatcher import MAX_RETRIES
from triptych.router.pool.retry_budget import SHARE_OF_TRAFFIC, SMALLEST_CAPACITY

BULK = {"x-priority": "bulk"}


@pytest.mark.parametrize("with_breakers", [True, False])
async def test_retries_are_bounded_when_all_fail(
    with_breakers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No retries are earned by time, which a slow machine would take more of.
    monkeypatch.setattr(retry_budget, "FLOOR_PER_SECOND", 0.0)
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 0.02)
    monkeypatch.setattr(breaker, "LONGEST_OPEN_SECONDS", 0.1)
    if not with_breakers:
        # Open breakers would hide the retry budget.
        monkeypatch.setattr(breaker, "FAILURES_UNTIL_OPEN", 10**9)
    workers = [FakeWorker(dimensions=64), FakeWorker(dimensions=64)]
    async with fake_workers(*workers), running_router(*workers, lanes=2, batch_items=1) as router:
        for worker in workers:
            worker.mode = "error"
        load = OpenLoop(router)
        await load.answered(300)
        outcomes = await load.stop()
        assert {outcome[:3] for outcome in outcomes} <= {"500", "503"}, outcomes
        sent = Counter(item.content.text for worker in workers for item in worker.items)  # type: ignore[union-attr]
        assert max(sent.values()) <= 1 + MAX_RETRIES
        retries = sent.total() - len(sent)
        assert 0 < retries <= SMALLEST_CAPACITY + SHARE_OF_TRAFFIC * sent.total()
        await router.until_idle()

        for worker in workers:
            worker.mode = "healthy"
        load = OpenLoop(router)
        await eventually(lambda: all(router.replica(worker).sound for worker in workers))
        await load.stop()
        load = OpenLoop(router)
        await load.answered(100)
        assert set(await load.stop()) == {"ok"}
        await router.until_idle()


async def test_hopeless_deadline_returns_429() -> None:
    worker = FakeWorker(dimensions=64)
    worker.mode, worker.delay = "held", 0.02
    async with fake_workers(worker), running_router(worker, lanes=1, batch_items=1) as router:
        # The drain rate is unknown at first, so all of these are admitted.
        asked = [asyncio.create_task(router.ask([f"text {number}"])) for number in range(80)]
        await eventually(lambda: router.fleet.pools["retrieval"].queue.items == 79)
        worker.mode = "slow"
        worker.gate.set()
        await worker.until_batches(30)
        reply = await router.ask(["hurried"], headers={"x-request-timeout-seconds": "0.1"})
        assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
        assert int(reply.headers["retry-after"]) > 0
        asked.append(asyncio.create_task(router.ask(["patient"])))
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        assert not any(item.content.text == "hurried" for item in worker.items)  # type: ignore[union-attr]
        reply = await router.ask(["hurried"], headers={"x-request-timeout-seconds": "60"})
        assert reply.status_code == 200
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


async def test_unmeasured_replicas_share_batches() -> None:
    workers = [FakeWorker(), FakeWorker()]
    for worker in workers:
        worker.mode = "held"
    async with fake_workers(*workers), running_router(*workers, lanes=4, batch_items=1) as router:
        asked = asyncio.create_task(router.ask([f"text {number}" for number in range(4)]))
        for worker in workers:
            await worker.until_batches(2)
        for worker in workers:
            worker.gate.set()
        assert (await asked).status_code == 200
        await router.until_idle()


async def test_bulk_has_one_lane_beside_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "QUERIES_SECONDS", 3600.0)
    async with one_worker(lanes=4, batch_items=1) as (router, worker):
        assert (await router.ask(["a query"])).status_code == 200
        worker.mode = "held"
        bulk = asyncio.create_task(router.ask([f"bulk {number}" for number in range(20)], headers=BULK))
        await worker.until_batches(2)
        queries = asyncio.create_task(router.ask(["one", "two", "three"]))
        await worker.until_batches(5)
        assert [batch.priority for batch in worker.batches] == [0, 1, 0, 0, 0]
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(bulk, queries)} == {200}
        await router.until_idle()
