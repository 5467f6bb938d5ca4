"""What becomes of work that is not done when a router's time to stop is over."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import orjson

from router.settings import RouterSettings
from tests.fakes.worker import FakeWorker, fake_workers

ROOT = Path(__file__).parents[2]
BODY = {"input": "a text", "task": "retrieval.query"}


@asynccontextmanager
async def router_process(
    worker: FakeWorker, drain_seconds: int
) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """`python -m router` in front of `worker`, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [{"targets": [worker.address], "labels": {"task": worker.info.task}}]
    settings = RouterSettings.model_validate(
        {"workers": workers, "port": port, "drain_seconds": drain_seconds}
    )
    environment = {
        f"ROUTER_{name}".upper(): value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in settings.model_dump(
            mode="json", include={"workers", "port", "drain_seconds"}
        ).items()
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", cwd=ROOT, env={**os.environ, **environment}
    )
    try:
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            await until_ready(client)
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_ready(client: httpx.AsyncClient) -> None:
    """Return once the router serves; before that there is nothing to wait on but its port."""
    while True:
        with suppress(httpx.TransportError):
            if (await client.get("/ready")).is_success:
                return
        await asyncio.sleep(0.05)


async def test_work_that_never_ends_is_refused_when_the_time_to_stop_is_over() -> None:
    worker = FakeWorker()
    worker.mode = "hanging"
    async with fake_workers(worker), router_process(worker, drain_seconds=1) as (process, client):
        request = asyncio.create_task(client.post("/v1/embeddings", json=BODY))
        await worker.until_batches(1)
        process.send_signal(signal.SIGTERM)
        reply = await request
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "retry-after" in reply.headers
        await worker.until_left(1)
        await process.wait()
