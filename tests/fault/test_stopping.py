"""Stopping a router: drain notice, accepted work, idle connections and the drain timeout."""

import asyncio
import signal

import pytest

from tests.fakes.hang_guard import hang_guard
from tests.fakes.process import Process, router_process, until_refused
from tests.fakes.router import check
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.connections import LIVE


async def test_drain_timeout_returns_503() -> None:
    worker = FakeWorker()
    worker.mode = "hanging"
    async with fake_workers(worker), router_process(worker, ROUTER_DRAIN_SECONDS="1") as router:
        await router.until_it_answers("/ready")
        request = asyncio.create_task(router.ask("a text"))
        await worker.until_batches(1)
        router.process.send_signal(signal.SIGINT)
        reply = await request
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "retry-after" in reply.headers
        await worker.until_left(1)
        assert await router.ended() == 0


FOR_LONG = {"ROUTER_KEEP_ALIVE_SECONDS": "1000", "ROUTER_DRAIN_SECONDS": "1000"}


async def idle_connection(router: Process) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A kept-alive connection after one reply."""
    url = router.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(LIVE)
    assert b"connection" not in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(b'{"status":"ok"}'))
    return reader, writer


@pytest.mark.parametrize(("how", "processes"), [(signal.SIGHUP, "1"), (signal.SIGTERM, "2")])
async def test_drain_notice_keeps_serving(how: signal.Signals, processes: str) -> None:
    worker = FakeWorker()
    settings = {**FOR_LONG, "ROUTER_DRAIN_NOTICE_SECONDS": "1000", "ROUTER_PROCESSES": processes}
    async with fake_workers(worker), router_process(worker, **settings) as router:
        await router.until_it_answers("/ready")
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


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_stop_closes_idle_connections(processes: str) -> None:
    worker = FakeWorker()
    worker.mode = "held"
    settings = {**FOR_LONG, "ROUTER_PROCESSES": processes}
    async with fake_workers(worker), router_process(worker, **settings) as router:
        await router.until_it_answers("/ready")
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
    worker = FakeWorker()
    worker.mode = "hanging"
    async with (
        fake_workers(worker),
        router_process(worker, ROUTER_DRAIN_SECONDS="1000", ROUTER_PROCESSES=str(processes)) as router,
    ):
        await router.until_it_answers("/ready")
        request = asyncio.create_task(router.ask("a text"))
        await worker.until_batches(1)
        router.process.send_signal(signal.SIGTERM)
        await until_refused(str(router.client.base_url))
        assert router.process.returncode is None
        assert await router.ended(signal.SIGTERM) == 0
        await worker.until_left(1)
        await asyncio.gather(request, return_exceptions=True)
