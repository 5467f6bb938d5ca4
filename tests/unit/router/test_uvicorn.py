"""What the router uses of uvicorn's private interfaces exists in the installed version."""

import asyncio
from unittest.mock import Mock

import uvicorn
from uvicorn._types import ASGISendCallable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from triptych.router.serving.protocol import USES, Protocol


async def test_used_attributes_exist() -> None:
    async def waits(*_: object) -> None:
        await asyncio.Event().wait()

    config = uvicorn.Config(waits, log_config=None)
    config.load()
    state = ServerState()
    protocol = HttpToolsProtocol(config, state, {}, asyncio.get_running_loop())
    protocol.connection_made(asyncio.Transport())  # type: ignore[arg-type]
    protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    for task in state.tasks:
        task.cancel()
    objects = {"protocol": protocol, "cycle": protocol.cycle, "server": uvicorn.Server(config)}
    assert objects.keys() == USES.keys()
    missing = [
        f"{kind}.{name}" for kind, names in USES.items() for name in names if not hasattr(objects[kind], name)
    ]
    assert missing == []


async def test_head_and_body_are_one_write() -> None:
    async def app(_: object, __: object, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, log_config=None)  # type: ignore[arg-type]
    config.load()
    state, transport = ServerState(), Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    protocol = Protocol(config, state, {}, asyncio.get_running_loop())
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    await asyncio.gather(*state.tasks)
    assert not transport.write.called
    [[pieces]] = [call.args for call in transport.writelines.call_args_list]
    reply = b"".join(pieces)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"\r\n\r\nok")
    protocol.connection_lost(None)
