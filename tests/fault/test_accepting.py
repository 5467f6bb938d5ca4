"""Accepting connections in groups, and reading what was received before a stop."""

import asyncio
import socket

import pytest
import uvloop

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import eventually
from tests.fault.connections import LIVE, Later
from triptych.router.api.app import App
from triptych.router.serving import server as server_module
from triptych.router.serving.listening import copy_of, listen
from triptych.router.serving.server import ACCEPTS, LAST_SECONDS, Server
from triptych.router.settings import RouterSettings

CONNECTIONS = 100


def new_server() -> Server:
    return Server(RouterSettings(workers=[{"targets": ["127.0.0.1:1"], "labels": {"task": "code"}}]))  # type: ignore[list-item]


def test_busy_router_accepts_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[socket.socket] = []

    def copy(listener: socket.socket) -> socket.socket:
        copies.append(copy_of(listener))
        return copies[-1]

    monkeypatch.setattr(server_module, "copy_of", copy)
    listeners = listen("127.0.0.1", 0)
    server = new_server()
    turns = uvloop.run(turns_until_taken(server, listeners))
    assert turns <= CONNECTIONS / ACCEPTS + 5
    assert all(copy.fileno() == -1 for copy in [*listeners, *copies])


async def turns_until_taken(server: Server, listeners: list[socket.socket]) -> int:
    """Turns that a busy event loop takes until all connections are accepted."""
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(server.serve(sockets=listeners))
    await eventually(lambda: server.started)
    clients = [socket.socket() for _ in range(CONNECTIONS)]
    for client in clients:
        # In this thread, so that none is accepted yet.
        client.connect(listeners[0].getsockname())
    turns = 0
    taken = loop.create_future()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(server.server_state.connections) == CONNECTIONS:
            taken.set_result(None)
        else:
            loop.call_soon(turn)

    turn()
    async with hang_guard():
        await taken
    for client in clients:
        client.close()
    server.should_exit = True
    await serving
    return turns


async def test_stop_waits_for_unread_requests() -> None:
    listeners = listen("127.0.0.1", 0)
    server = new_server()
    app = server.config.app
    assert isinstance(app, App)
    app.connections.turns = turns = Later()
    serving = asyncio.create_task(server.serve(sockets=listeners))
    await eventually(lambda: server.started)
    reader, writer = await asyncio.open_connection(*listeners[0].getsockname())
    writer.write(LIVE)
    await eventually(lambda: turns.waiting)
    server.should_exit = True
    asyncio.get_running_loop().call_later(4 * LAST_SECONDS, turns.go_on)
    async with hang_guard():
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await serving
