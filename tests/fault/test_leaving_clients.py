"""Clients that disconnect: their work is dropped."""

import asyncio
import contextlib
from typing import Any

import pytest

from tests.fakes.router import one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.connections import LIVE, connected, posted, until_read


async def leave(*asked: "asyncio.Task[Any]") -> None:
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


@pytest.mark.parametrize("next_request", [LIVE, posted(["b"])], ids=["read", "work"])
async def test_leaving_a_pipeline_drops_its_work(next_request: bytes) -> None:
    async with one_worker("hanging") as (router, worker):
        async with connected(router) as (_, writer):
            writer.write(posted(["a"]) + next_request)
            await worker.until_batches(1)
            await until_read(router, writer)
        await worker.until_left(1)
        await router.until_idle()
        assert len(worker.batches) == 1


async def test_error_in_one_pool_cancels_the_others() -> None:
    code, retrieval = FakeWorker("code"), FakeWorker("retrieval")
    async with fake_workers(code, retrieval), running_router(code, retrieval) as router:
        retrieval.mode = "hanging"
        items = [{"text": "!token_limit", "task": "code.query"}, {"text": "a", "task": "retrieval.query"}]
        reply = await router.post(input=items)
        assert (reply.status_code, reply.json()["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
        await retrieval.until_left(1)
        await router.until_idle()
