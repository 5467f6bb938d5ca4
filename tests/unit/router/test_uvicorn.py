"""What uvicorn writes to its transport, and what the router makes of it."""

import asyncio
from unittest.mock import Mock

import uvicorn
from uvicorn._types import ASGISendCallable
from uvicorn.server import ServerState

from triptych.router.api.cors import Cors
from triptych.router.observe.metrics import Metrics
from triptych.router.serving.connections import Connections
from triptych.router.serving.protocol import Protocol
from triptych.router.settings import RouterSettings


async def written(*pieces: bytes) -> Mock:
    """The transport after a reply in `pieces`."""

    async def app(_: object, __: object, send: ASGISendCallable) -> None:
        length = b"%d" % sum(map(len, pieces))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": piece is not pieces[-1]})

    connections = Connections(RouterSettings.model_construct(), Metrics())
    vars(app).update(turn_away=lambda *_: None, cors=Cors(()), connections=connections)
    config = uvicorn.Config(app, log_config=None)  # type: ignore[arg-type]
    config.load()
    state, transport = ServerState(), Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    protocol = Protocol(config, state, {}, asyncio.get_running_loop())
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    await asyncio.gather(*state.tasks)
    protocol.connection_lost(None)
    return transport


async def test_head_and_body_are_one_write() -> None:
    transport = await written(b"ok")
    assert not transport.write.called
    [[pieces]] = [call.args for call in transport.writelines.call_args_list]
    reply = b"".join(pieces)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"\r\n\r\nok")


async def test_body_that_looks_like_a_head_is_sent_whole() -> None:
    pieces = [b"HTTP/1.1 0", b"HTTP/1.1 1", b"HTTP/1.1 2", b"HTTP/1.1 3"]
    transport = await written(*pieces)
    sent = [call.args[0] for call in transport.mock_calls if call[0] in ("write", "writelines")]
    reply = b"".join(part if isinstance(part, bytes) else b"".join(part) for part in sent)
    assert reply.partition(b"\r\n\r\n")[2] == b"".join(pieces)
