"""Workers that fail at batches: what a client sees, with and without a good replica."""

import asyncio
from collections import Counter

import pytest

from tests.fakes.clock import skip
from tests.fakes.frames import Mode
from tests.fakes.router import RunningRouter, eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.items import Priority
from triptych.router.pool import call
from triptych.router.pool import replica as replica_module
from triptych.router.pool.breaker import FAILURES_UNTIL_OPEN
from triptych.router.pool.dispatcher import MAX_RETRIES
from triptych.router.pool.replica import State
from triptych.workers.shared.contract import ROUTER_HEADER

# Failures that are retried.
FAILING: list[Mode] = [
    "error",
    "unavailable",
    "hanging",
    "hanging in the body",
    "cut",
    "short",
    "reset",
    "garbage",
    "wrong dimension",
    "wrong length",
    "not finite",
    "not normalised",
    "wrong index",
]
WRONG_VECTORS: list[Mode] = ["wrong dimension", "wrong length", "not finite", "not normalised"]
SILENT: list[Mode] = ["hanging", "hanging in the body"]


def patience(mode: Mode) -> dict[str, float]:
    """The worker timeout for a silent mode: short for the test, long enough for a good worker under load."""
    return {"worker_timeout_seconds": 3.0} if mode in SILENT else {}


def attempts(*workers: FakeWorker) -> Counter[str]:
    """Number of times that each text was sent."""
    return Counter(item.content.text for worker in workers for item in worker.items)  # type: ignore[union-attr]


async def ask_many(router: RunningRouter, name: str = "") -> set[int]:
    """The statuses of 20 concurrent requests of four texts."""
    texts = [[f"{name} {number} {index}" for index in range(4)] for number in range(20)]
    return {reply.status_code for reply in await asyncio.gather(*map(router.ask, texts))}


@pytest.mark.parametrize("mode", [*FAILING, "flaky", "same index twice"])
async def test_failing_replica_causes_no_errors(mode: Mode) -> None:
    bad, good = FakeWorker(), FakeWorker()
    bad.mode = mode
    async with fake_workers(bad, good), running_router(bad, good, **patience(mode)) as router:
        for turn in range(3):
            assert await ask_many(router, f"turn {turn}") == {200}
        assert bad.batches, "the failing replica got no batch"
        assert max(attempts(bad, good).values()) <= 1 + MAX_RETRIES
        await router.until_idle()


@pytest.mark.parametrize("mode", [mode for mode in FAILING if mode != "hanging in the body"])
async def test_failing_only_replica_returns_500(mode: Mode) -> None:
    """But a failure that passes is retried."""
    async with one_worker(**patience(mode)) as (router, worker):
        worker.script.extend([mode] * MAX_RETRIES)
        assert (await router.ask(["a"])).status_code == 200
        worker.mode = mode
        reply = await router.ask(["b"])
        assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
        assert attempts(worker) == {"a": 1 + MAX_RETRIES, "b": 1 + MAX_RETRIES}
        await router.until_idle()


@pytest.mark.parametrize("mode", WRONG_VECTORS)
@pytest.mark.parametrize("fields", [{}, {"dimensions": 128}, {"return_multivector": True}], ids=str)
async def test_invalid_vector_is_never_returned(mode: Mode, fields: dict[str, object]) -> None:
    bad = FakeWorker()
    bad.mode = mode
    async with fake_workers(bad), running_router(bad) as router:
        reply = await router.post(input=["a", "b"], **fields)
        # After three failures the breaker of the only replica opens.
        assert reply.status_code in (500, 503)
        assert reply.json()["code"] in ("INTERNAL_ERROR", "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("mode", ["cut", "short"])
async def test_finished_items_are_not_retried(mode: Mode) -> None:
    async with one_worker() as (router, worker):
        worker.script.append(mode)
        assert (await router.ask(list("abcdef"))).status_code == 200
        counts = attempts(worker)
        assert set(counts) == set("abcdef")
        # The fake worker answers the last item first.
        assert counts["f"] == 1
        assert counts["a"] == 2


async def test_rejected_batch_is_not_retried() -> None:
    refusing, good = FakeWorker(), FakeWorker()
    refusing.script.append("rejecting")
    async with fake_workers(refusing, good), running_router(refusing, good) as router:
        reply = await router.ask(["a"])
        assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
        assert attempts(refusing, good) == {"a": 1}
        assert router.replica(refusing).state is State.READY
        await router.until_idle()


@pytest.mark.parametrize("mode", ["overloaded", "draining"])
async def test_refusing_replica_causes_no_errors(mode: Mode) -> None:
    busy, good = FakeWorker(), FakeWorker()
    busy.mode = mode
    async with fake_workers(busy, good), running_router(busy, good) as router:
        for _ in range(3):
            assert await ask_many(router) == {200}
        assert busy.batches
        await router.until_idle()


async def test_overload_uses_no_tries() -> None:
    worker = FakeWorker()
    # More than the failures that open the breaker.
    worker.script.extend(["overloaded"] * (FAILURES_UNTIL_OPEN + 1))  # type: ignore[list-item]
    async with fake_workers(worker), running_router(worker) as router:
        assert (await router.ask(["a"])).status_code == 200
        replica = router.replica(worker)
        assert (replica.state, replica.breaker.failures) == (State.READY, 0)
        assert attempts(worker) == {"a": FAILURES_UNTIL_OPEN + 2}


async def test_overload_until_the_deadline_returns_504() -> None:
    async with one_worker("overloaded") as (router, worker):
        asked = asyncio.create_task(router.ask(["a"]))
        await worker.until_batches(1)
        skip(60)
        reply = await asked
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")
        await router.until_idle()


async def test_overload_of_bulk_does_not_delay_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "LONGEST_PAUSE_SECONDS", 3600.0)
    async with one_worker() as (router, worker):
        worker.script.append("overloaded")
        worker.wait = "3600"
        bulk = asyncio.create_task(router.ask(["bulk"], headers={"x-priority": "bulk"}))
        await worker.until_batches(1)
        assert (await router.ask(["query"])).status_code == 200
        assert not bulk.done()
        assert [batch.priority for batch in worker.batches] == [Priority.BULK, Priority.INTERACTIVE]
        bulk.cancel()


@pytest.mark.parametrize("wait", ["soon", "nan", "-1", "0", "inf", "1e9"])
async def test_invalid_wait_header_is_ignored(wait: str) -> None:
    async with one_worker(request_timeout_seconds=30) as (router, worker):
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


async def test_draining_only_replica_returns_503() -> None:
    async with one_worker("draining") as (router, worker):
        worker.ready = False
        reply = await router.ask(["a"])
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(reply.headers["retry-after"]) > 0
        await router.until_idle()


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


async def test_poison_item_fails_alone() -> None:
    workers = [FakeWorker() for _ in range(2)]
    async with fake_workers(*workers), running_router(*workers, lanes=1) as router:
        texts = ["!poison" if number == 4 else f"text {number}" for number in range(10)]
        replies = await asyncio.gather(*(router.ask([text]) for text in texts))
        statuses = {text: reply.status_code for text, reply in zip(texts, replies, strict=True)}
        assert statuses == {text: 500 if text == "!poison" else 200 for text in texts}
        await router.until_idle()


async def test_endless_reply_releases_its_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call, "END_SECONDS", 0.05)
    async with one_worker(hold_seconds=60) as (router, worker):
        worker.script.extend(["endless"] * 4)
        for _ in range(8):
            assert (await router.ask(["a"])).status_code == 200
        await router.until_idle()
