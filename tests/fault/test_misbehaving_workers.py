"""Workers that fail at batches, or serve something else: what clients see."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from tests.fakes.clock import skip
from tests.fakes.frames import FAILING, Mode
from tests.fakes.router import RunningRouter, eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.pool.call import END_SECONDS
from triptych.router.pool.dispatcher import MAX_RETRIES
from triptych.router.pool.replica import State
from triptych.workers.shared.contract import ROUTER_HEADER

SILENT: list[Mode] = ["hanging", "hanging in the body"]
SILENCE_SECONDS = 30.0
SETTINGS = {
    "worker_timeout_seconds": SILENCE_SECONDS,
    "request_timeout_seconds": 3600,
    "keep_alive_seconds": 3600,
}

T = TypeVar("T")


async def answered(router: RunningRouter, bad: FakeWorker, mode: Mode, asked: Coroutine[Any, Any, T]) -> T:
    """The result of `asked`. The time of a silent worker passes while no other has a batch."""
    task = asyncio.create_task(asked)
    failing = router.replica(bad)
    while mode in SILENT and not task.done():
        busy = [one for one in router.fleet.pools["retrieval"].replicas if one.lanes_in_use]
        if bad.active and busy == [failing] and failing.state is State.READY:
            skip(SILENCE_SECONDS)
        # Until all requests have arrived, whose heads may not be late.
        for _ in range(100):
            await asyncio.sleep(0)
    return await task


def attempts(*workers: FakeWorker) -> Counter[str]:
    """Number of times that each text was sent."""
    return Counter(item.content.text for worker in workers for item in worker.items)  # type: ignore[union-attr]


async def ask_many(router: RunningRouter, name: str = "") -> set[int]:
    """The statuses of 20 concurrent requests of four texts."""
    texts = [[f"{name} {number} {index}" for index in range(4)] for number in range(20)]
    return {reply.status_code for reply in await asyncio.gather(*map(router.ask, texts))}


@pytest.mark.parametrize("mode", [*FAILING, "flaky", "same index twice"])
async def test_failing_replica_causes_no_errors(mode: Mode) -> None:
    bad, good = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    bad.mode = mode
    async with fake_workers(bad, good), running_router(bad, good, **SETTINGS) as router:
        for turn in range(3):
            assert await answered(router, bad, mode, ask_many(router, f"turn {turn}")) == {200}
        assert bad.batches, "the failing replica got no batch"
        assert max(attempts(bad, good).values()) <= 1 + MAX_RETRIES
        await router.until_idle()


@pytest.mark.parametrize("mode", [mode for mode in FAILING if mode != "hanging in the body"])
async def test_failing_only_replica_returns_500(mode: Mode) -> None:
    """But a failure that passes is retried."""
    async with one_worker(**SETTINGS) as (router, worker):
        worker.script.extend([mode] * MAX_RETRIES)
        assert (await answered(router, worker, mode, router.ask(["a"]))).status_code == 200
        worker.mode = mode
        reply = await answered(router, worker, mode, router.ask(["b"]))
        assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
        assert attempts(worker) == {"a": 1 + MAX_RETRIES, "b": 1 + MAX_RETRIES}
        await router.until_idle()


async def test_rejected_batch_is_not_retried() -> None:
    refusing, good = FakeWorker(), FakeWorker()
    refusing.script.append("rejecting")
    async with fake_workers(refusing, good), running_router(refusing, good) as router:
        reply = await router.ask(["a"])
        assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
        assert attempts(refusing, good) == {"a": 1}
        assert router.replica(refusing).state is State.READY
        await router.until_idle()


async def test_invalid_wait_header_is_ignored() -> None:
    async with one_worker() as (router, worker):
        for wait in ("soon", "nan", "-1", "0"):
            worker.script.append("overloaded")
            worker.wait = wait
            assert (await router.ask(["a"])).status_code == 200


async def test_router_identifies_itself() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as one, running_router(worker) as other:
        for router in (one, one, other):
            await router.ask(["a"])
    names = [headers[ROUTER_HEADER] for headers in worker.headers]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("!token_limit", 400, "INPUT_TOKEN_LIMIT_EXCEEDED"),
        ("!media_invalid", 400, "INPUT_MEDIA_INVALID"),
        ("!unsupported", 422, "VALIDATION_ERROR"),
        ("!internal", 500, "INTERNAL_ERROR"),
    ],
)
async def test_item_failure_spares_its_batch(text: str, status: int, code: str) -> None:
    async with one_worker(lanes=1) as (router, worker):
        worker.script.append("held")
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        # While the only lane is taken, these two wait for one batch.
        wrong = asyncio.create_task(router.ask(["fine", text]))
        right = asyncio.create_task(router.ask(["also fine"]))
        await eventually(lambda: router.fleet.pools["retrieval"].queue.items == 3)
        worker.gate.set()
        assert (await first).status_code == 200
        assert (await right).status_code == 200
        reply = await wrong
        assert (reply.status_code, reply.json()["code"]) == (status, code)
        assert "body -> input -> 1" in reply.json()["detail"]
        assert len(worker.batches[1].items) == 3
        tries = 1 + MAX_RETRIES if status == 500 else 1
        assert attempts(worker)[text] == tries
        assert attempts(worker)["also fine"] == 1
        await router.until_idle()


@pytest.mark.parametrize("name", ["query", "documents -> 1"])
async def test_failure_names_query_or_document(name: str) -> None:
    async with one_worker() as (router, _):
        body = {"query": "a", "documents": ["b", "c"]} | (
            {"query": "!unsupported"} if name == "query" else {"documents": ["b", "!unsupported"]}
        )
        reply = await router.client.post("/v1/rerank", json=body)
        assert [fault["field"] for fault in reply.json()["errors"]] == [f"body -> {name}"]


async def test_endless_reply_releases_its_lane() -> None:
    async with one_worker(hold_seconds=60) as (router, worker):
        worker.script.extend(["endless"] * 4)
        for _ in range(4):
            assert (await router.ask(["a"])).status_code == 200
        skip(END_SECONDS)
        await router.until_idle()
        assert (await router.ask(["a"])).status_code == 200


async def test_swapped_worker_returns_no_vectors() -> None:
    """It restarts with another task before the next probe."""
    async with one_worker() as (router, worker):
        assert (await router.ask(["a"])).status_code == 200
        await worker.die()
        worker.info = msgspec.structs.replace(worker.info, task="code")
        await worker.start()
        replies = [await router.ask([f"text {number}"]) for number in range(10)]
        assert {reply.status_code for reply in replies} <= {503}
        await eventually(lambda: "code" in router.replica(worker).reason)
        assert (await router.ask(["b"])).status_code == 503


async def test_unreadable_info_is_refused() -> None:
    async with one_worker(wait=False, probe_seconds=0.02) as (router, worker):
        worker.info = None  # type: ignore[assignment]
        await eventually(lambda: "invalid" in router.replica(worker).reason)
        assert (await router.ask(["a"])).status_code == 503


async def test_worker_info_bounds_dimensions() -> None:
    dimensions = 64
    worker = FakeWorker(dimensions=dimensions)
    async with fake_workers(worker), running_router(worker) as router:
        assert (await router.ask(["a"], dimensions=dimensions)).status_code == 200
        reply = await router.ask(["a"], dimensions=dimensions + 1)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == "body -> dimensions"
        assert len((await router.ask(["a"])).json()["data"][0]["embedding"]) == dimensions
