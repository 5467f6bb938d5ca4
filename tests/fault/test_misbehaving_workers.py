"""Every way a worker can fail at a batch: what a client sees with a good replica beside it, and without."""

import asyncio
from collections import Counter

import pytest

from router.pool import call
from router.pool.dispatcher import MAX_RETRIES
from router.pool.replica import PAUSE_SECONDS, State
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.worker import FakeWorker, Mode, fake_workers
from workers.shared.contract import ROUTER_HEADER

# May be tried again: nothing of it is the fault of the batch.
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


def patience(mode: Mode, seconds: float = 1.0) -> dict[str, float]:
    """The setting of how long a worker may be silent, where one is: a good one must never seem to be."""
    return {"worker_timeout_seconds": seconds} if mode in SILENT else {}


def attempts(*workers: FakeWorker) -> Counter[str]:
    """How often each text was sent to any worker."""
    return Counter(item.content.text for worker in workers for item in worker.items)  # type: ignore[union-attr]


async def ask_much(router: RunningRouter, requests: int = 20, size: int = 4) -> list[int]:
    """The statuses of as many requests at once."""
    texts = [[f"text {number} {index}" for index in range(size)] for number in range(requests)]
    return [reply.status_code for reply in await asyncio.gather(*map(router.ask, texts))]


@pytest.mark.parametrize("mode", [*FAILING, "same index twice"])
async def test_failing_replica_causes_no_errors(mode: Mode) -> None:
    bad, good = FakeWorker(), FakeWorker()
    bad.mode = mode
    async with fake_workers(bad, good), running_router(bad, good, **patience(mode)) as router:
        for _ in range(3):
            assert set(await ask_much(router)) == {200}
        assert bad.batches, "the bad one was never asked, so this has shown nothing"
        await router.until_idle()


@pytest.mark.parametrize("mode", FAILING)
async def test_item_tries_are_bounded(mode: Mode) -> None:
    bad, good = FakeWorker(), FakeWorker()
    bad.mode = mode
    async with fake_workers(bad, good), running_router(bad, good, **patience(mode, 0.3)) as router:
        await ask_much(router)
        assert max(attempts(bad, good).values()) <= 1 + MAX_RETRIES


@pytest.mark.parametrize("mode", [mode for mode in FAILING if mode != "hanging in the body"])
async def test_failing_only_replica_returns_500(mode: Mode) -> None:
    bad = FakeWorker()
    bad.mode = mode
    async with fake_workers(bad), running_router(bad, **patience(mode, 0.3)) as router:
        reply = await router.ask(["a"])
        assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
        assert attempts(bad) == {"a": 1 + MAX_RETRIES}
        await router.until_idle()


@pytest.mark.parametrize("mode", FAILING)
async def test_passing_failure_is_retried(mode: Mode) -> None:
    worker = FakeWorker()
    worker.script.extend([mode] * MAX_RETRIES)
    async with fake_workers(worker), running_router(worker, **patience(mode)) as router:
        assert (await router.ask(["a"])).status_code == 200
        await router.until_idle()


@pytest.mark.parametrize("mode", WRONG_VECTORS)
@pytest.mark.parametrize("fields", [{}, {"dimensions": 128}, {"return_multivector": True}], ids=str)
async def test_invalid_vector_is_never_returned(mode: Mode, fields: dict[str, object]) -> None:
    bad = FakeWorker()
    bad.mode = mode
    async with fake_workers(bad), running_router(bad) as router:
        reply = await router.post(input=["a", "b"], **fields)
        # After three failures the only replica is down, and what is left finds nobody.
        assert reply.status_code in (500, 503)
        assert reply.json()["code"] in ("INTERNAL_ERROR", "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("mode", ["cut", "short"])
async def test_finished_items_are_not_retried(mode: Mode) -> None:
    worker = FakeWorker()
    worker.script.append(mode)
    async with fake_workers(worker), running_router(worker) as router:
        assert (await router.ask(list("abcdef"))).status_code == 200
        counts = attempts(worker)
        assert set(counts) == set("abcdef")
        # The last of a batch is the first to be answered.
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
            assert set(await ask_much(router)) == {200}
        assert busy.batches
        await router.until_idle()


async def test_overload_uses_no_tries() -> None:
    """However often: the items keep their tries and the replica stays in."""
    worker = FakeWorker()
    # More than any failure may come in a row.
    worker.script.extend(["overloaded"] * 4)
    async with fake_workers(worker), running_router(worker) as router:
        assert (await router.ask(["a"])).status_code == 200
        assert router.replica(worker).state is State.READY
        assert attempts(worker) == {"a": 5}


async def test_overload_is_retried_until_the_deadline() -> None:
    worker = FakeWorker()
    worker.mode = "overloaded"
    async with fake_workers(worker), running_router(worker, request_timeout_seconds=0.5) as router:
        reply = await router.ask(["a"])
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")
        assert 2 <= len(worker.batches) <= 1 + 0.5 / PAUSE_SECONDS
        await router.until_idle()


async def test_overload_of_bulk_does_not_delay_queries() -> None:
    worker = FakeWorker()
    worker.script.append("overloaded")
    worker.wait = "1.5"
    async with fake_workers(worker), running_router(worker) as router:
        bulk = asyncio.create_task(router.ask(["bulk"], headers={"x-priority": "bulk"}))
        await worker.until_batches(1)
        await router.ask(["query"])
        assert not bulk.done()
        assert (await bulk).status_code == 200
        assert [batch.priority for batch in worker.batches] == [1, 0, 1]


@pytest.mark.parametrize("wait", ["soon", "nan", "-1", "0", "inf", "1e9"])
async def test_invalid_wait_header_is_ignored(wait: str) -> None:
    worker = FakeWorker()
    worker.script.append("overloaded")
    worker.wait = wait
    async with fake_workers(worker), running_router(worker, request_timeout_seconds=30) as router:
        assert (await router.ask(["a"])).status_code == 200


async def test_router_identifies_itself() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as one, running_router(worker) as other:
        for router in (one, one, other):
            await router.ask(["a"])
    names = [headers[ROUTER_HEADER] for headers in worker.headers]
    assert names[0] == names[1] != names[2]


async def test_draining_replica_gets_no_batches() -> None:
    draining, good = FakeWorker(), FakeWorker()
    draining.mode = "draining"
    async with fake_workers(draining, good), running_router(draining, good, probe_seconds=0.02) as router:
        assert (await router.ask(["a"])).status_code == 200
        draining.ready = False
        await router.until_state(draining, State.DRAINING, State.DOWN)
        before = len(draining.batches)
        assert set(await ask_much(router)) == {200}
        assert len(draining.batches) == before


async def test_draining_only_replica_returns_503() -> None:
    worker = FakeWorker()
    worker.mode = "draining"
    worker.ready = True
    async with fake_workers(worker), running_router(worker) as router:
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
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker, lanes=1) as router:
        worker.script.append("held")
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        # While the only lane is taken, these two gather in one batch.
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


async def test_retry_budget_bounds_retries() -> None:
    """A pool whose every item fails must not have its load tripled by retries."""
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker, lanes=2, batch_items=1) as router:
        texts = [f"!internal {number}" for number in range(100)]
        statuses = {reply.status_code for reply in await asyncio.gather(*(router.ask([t]) for t in texts))}
        assert statuses == {500, 503}
        assert set(attempts(worker)) == set(texts)
        # Ten at the start, one for every five batches, one for each second of which there are few.
        assert len(worker.batches) < 1.7 * len(texts)
        await router.until_idle()


async def test_endless_reply_releases_its_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call, "END_SECONDS", 0.05)
    worker = FakeWorker()
    worker.script.extend(["endless"] * 4)
    async with fake_workers(worker), running_router(worker, hold_seconds=60) as router:
        for _ in range(8):
            assert (await router.ask(["a"])).status_code == 200
        await router.until_idle()
