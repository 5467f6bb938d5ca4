"""How many connections a busy router accepts in a turn of its event loop."""

import asyncio
import socket

import pytest
import uvloop

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import eventually
from triptych.router.serving import server as server_module
from triptych.router.serving.listening import copy_of, listen
from triptych.router.serving.server import ACCEPTS, Server
from triptych.router.settings import RouterSettings

CONNECTIONS = 100


def test_busy_router_accepts_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[socket.socket] = []

    def copy(listener: socket.socket) -> socket.socket:
        copies.append(copy_of(listener))
        return copies[-1]

    monkeypatch.setattr(server_module, "copy_of", copy)
    listeners = listen("127.0.0.1", 0)
    server = Server(RouterSettings(workers=[{"targets": ["127.0.0.1:1"], "labels": {"task": "code"}}]))  # type: ignore[list-item]
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
