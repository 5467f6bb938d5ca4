"""Metrics of several router processes: one page for all of them."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.multiprocess import mark_process_dead

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.router import workers_setting
from tests.fakes.worker import FakeWorker, fake_workers
from tests.metrics import Page, parse, value
from triptych.router.observe.metrics import SHARED_FOLDER

ROOT = Path(__file__).parents[2]

# Listens on the shared port, and on one of its own, which it prints.
PROGRAM = """
import socket, sys, uvicorn
from triptych.router.api.app import App
from triptych.router.settings import RouterSettings
from triptych.workers.shared.strict_settings import read_settings

own = socket.create_server(("127.0.0.1", 0))
shared = socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=True)
print(own.getsockname()[1], flush=True)
config = uvicorn.Config(App(read_settings(RouterSettings)), lifespan="on", log_config=None, access_log=False)
uvicorn.Server(config).run(sockets=[own, shared])
"""


class Router:
    """One of the processes; `client` talks to that one."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def ask(self) -> httpx.Response:
        return await self.client.post("/v1/embeddings", json={"input": ["a", "b"], "task": "retrieval.query"})

    async def until_ready(self) -> None:
        async with hang_guard():
            while (await self.client.get("/ready")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def router_on(port: int, worker: FakeWorker, folder: Path) -> AsyncIterator[Router]:
    ours = {"ROUTER_WORKERS": json.dumps(workers_setting([worker])), SHARED_FOLDER: str(folder)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(port),
        env=os.environ | ours,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        own = int(await process.stdout.readline())
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{own}", timeout=GUARD_SECONDS, trust_env=False
        ) as client:
            yield Router(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def page_when(client: httpx.AsyncClient, holds: Callable[[Page], bool]) -> Page:
    """The metrics page, once `holds` is true of it; gauges of other processes are up to a second old."""
    async with hang_guard():
        while True:
            page = parse((await client.get("/metrics")).text)
            if holds(page):
                return page
            await asyncio.sleep(0.02)


async def test_metrics_are_summed_over_processes(tmp_path: Path) -> None:
    worker = FakeWorker()
    answered = {"route": "/v1/embeddings", "status": "200"}
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as reserved:
        port = reserved.getsockname()[1]
    async with fake_workers(worker), AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(router_on(port, worker, tmp_path)) for _ in range(2)]
        for router, count in ((one, 3), (other, 2)):
            await router.until_ready()
            for _ in range(count):
                assert (await router.ask()).status_code == 200
        for router in (one, other):
            # Items are counted when their batch ends, which may be after the client has its reply.
            page = await page_when(
                router.client, lambda page: value(page, "triptych_router_items_total", pool="retrieval") == 10
            )
            assert value(page, "triptych_router_request_duration_seconds_count", **answered) == 5
            assert value(page, "triptych_router_batch_items_bucket", pool="retrieval", le="2.0") == 5

        worker.mode = "held"
        seen = len(worker.batches)
        waiting = [asyncio.create_task(router.ask()) for router in (one, one, other)]
        await worker.until_batches(seen + 3)
        its = {"pool": "retrieval", "replica": worker.address}
        for router in (one, other):
            page = await page_when(
                router.client,
                lambda page: (
                    value(page, "triptych_router_replica_batches_in_flight", **its) == 3
                    and value(page, "triptych_router_requests_in_flight") == 3
                ),
            )
            assert value(page, "triptych_router_processes") == 2
            memory = value(page, "triptych_router_resident_memory_bytes")
            assert memory == pytest.approx(
                sum(psutil.Process(router.process.pid).memory_info().rss for router in (one, other)), rel=0.1
            )
            assert value(page, "triptych_router_replica_state", state="ready", **its) == 2

        one.process.kill()
        await one.process.wait()
        mark_process_dead(one.process.pid, tmp_path)
        page = parse((await other.client.get("/metrics")).text)
        assert value(page, "triptych_router_processes") == 1
        assert value(page, "triptych_router_requests_in_flight") == 1
        assert value(page, "triptych_router_replica_state", state="ready", **its) == 1
        assert value(page, "triptych_router_request_duration_seconds_count", **answered) == 5
        worker.gate.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        page = parse((await other.client.get("/metrics")).text)
        assert value(page, "triptych_router_request_duration_seconds_count", **answered) == 6
