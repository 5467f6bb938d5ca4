"""Stopping a router: drain notice, accepted work, idle connections and the drain timeout."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.frames import Mode
from tests.fakes.hang_guard import hang_guard
from tests.fakes.process import Process, router_process, until_refused
from tests.fakes.router import check
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.connections import LIVE


@asynccontextmanager
async def ready_router(
    mode: Mode, processes: int = 1, drain_seconds: int = 1000, **settings: str
) -> AsyncIterator[tuple[Process, FakeWorker]]:
    """A router of some processes in front of a worker."""
    worker = FakeWorker()
    worker.mode = mode
    settings |= {"ROUTER_PROCESSES": str(processes), "ROUTER_DRAIN_SECONDS": str(drain_seconds)}
    settings |= {"ROUTER_KEEP_ALIVE_SECONDS": "1000"}
    async with fake_workers(worker), router_process(worker, **settings) as router:
        await router.until_it_answers("/ready")
        yield router, worker


async def test_drain_timeout_returns_503() -> None:
    async with ready_router("hanging", drain_seconds=1) as (router, worker):
        request = asyncio.create_task(router.ask("a text"))
        await worker.until_batches(1)
        router.process.send_signal(signal.SIGINT)
        reply = await request
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "retry-after" in reply.headers
        await worker.until_left(1)
        assert await router.ended() == 0


async def idle_connection(router: Process) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A kept-alive connection after one reply."""
    url = router.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(LIVE)
    assert b"connection" not in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(b'{"status":"ok"}'))
    return reader, writer


@pytest.mark.parametrize(("how", "processes"), [(signal.SIGHUP, 1), (signal.SIGTERM, 2)])
async def test_drain_notice_keeps_serving(how: signal.Signals, processes: int) -> None:
    async with ready_router("healthy", processes, ROUTER_DRAIN_NOTICE_SECONDS="1000") as (router, _):
        used, used_writer = await idle_connection(router)
        router.process.send_signal(how)
        while await router.answers("/ready"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        ready = await router.client.get("/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
        for path, status in (("/health", 503), ("/live", 200)):
            assert (await router.client.get(path)).status_code == status
        # Each on a new connection.
        for number in range(10):
            reply = await router.ask(f"text {number}")
            check(reply, [f"text {number}"])
            assert reply.headers["connection"] == "close"
        used_writer.write(LIVE)
        async with hang_guard():
            last = await used.read()
        assert last.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in last
        used_writer.close()
        assert await router.ended(how) == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_stop_closes_idle_connections(processes: int) -> None:
    async with ready_router("held", processes) as (router, worker):
        busy = asyncio.create_task(router.ask("a text"))
        await worker.until_batches(1)
        idle = [await idle_connection(router) for _ in range(4)]
        router.process.send_signal(signal.SIGTERM)
        async with hang_guard():
            for reader, writer in idle:
                assert await reader.read() == b""
                writer.close()
        # The request in flight goes on.
        assert not busy.done()
        worker.gate.set()
        check(await busy, ["a text"])
        assert await router.ended() == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_second_signal_stops_at_once(processes: int) -> None:
    async with ready_router("hanging", processes) as (router, worker):
        request = asyncio.create_task(router.ask("a text"))
        await worker.until_batches(1)
        router.process.send_signal(signal.SIGTERM)
        await until_refused(str(router.client.base_url))
        assert router.process.returncode is None
        assert await router.ended(signal.SIGTERM) == 0
        await worker.until_left(1)
        await asyncio.gather(request, return_exceptions=True)
