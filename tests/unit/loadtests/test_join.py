"""How a process that sends load ends: with its run, or with the reason why it could not go on."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.unit.loadtests.test_conductor import LOCAL, STEADY, conducting, plan
from triptych.loadtests import join as module
from triptych.loadtests.assignment import HarnessFailed
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.generator import Generator


@contextlib.asynccontextmanager
async def joining(
    bind: str = LOCAL, host: str = LOCAL, name: str = "process 1"
) -> AsyncIterator[tuple[Conductor, asyncio.Task[None]]]:
    async with conducting(host=bind) as conductor, asyncio.timeout(GUARD_SECONDS):
        yield conductor, asyncio.create_task(module._join(host, conductor.port, name))


# The last listens on all addresses, also those of IPv4.
@pytest.mark.parametrize(
    ("bind", "host"), [(LOCAL, LOCAL), ("::1", "[::1]"), ("[::1]", "::1"), ("[::]", LOCAL)]
)
async def test_process_ends_with_its_run(bind: str, host: str) -> None:
    if bind != LOCAL and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    async with joining(bind, host) as (conductor, joined):
        await conductor.gather()
    await joined


async def test_name_that_is_not_utf8_joins() -> None:
    async with joining(name="p\udcff") as (conductor, joined):
        await conductor.gather()
        [measured] = await conductor.load([STEADY], lambda *_: None)
        assert [process.name for process in measured.processes] == ["p?"]
    await joined


async def test_failed_report_is_told_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(_: Generator) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(Generator, "take", take)
    async with joining() as (conductor, joined):
        with pytest.raises(HarnessFailed, match=r"(?s)process 1 failed.*it broke"):
            await conductor.gather()
    with pytest.raises(HarnessFailed, match="it broke"):
        await joined


async def test_listener_that_never_answers_is_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    with (
        socket.create_server((LOCAL, 0)) as listener,
        pytest.raises(HarnessFailed, match="no run waits there"),
    ):
        await module._join(LOCAL, listener.getsockname()[1], "process 1")


async def test_silent_conductor_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        """Sends the plan, and then not even a sign of life."""
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        await connection.send_bytes(msgspec.json.encode(plan()))
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    app = web.Application()
    app.router.add_get("/", silent)
    async with TestServer(app, shutdown_timeout=0) as server:
        with pytest.raises(HarnessFailed, match="is lost"):
            await module._join(LOCAL, server.port or 0, "process 1")
