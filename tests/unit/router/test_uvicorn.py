"""What the router uses of uvicorn's private interfaces exists in the installed version."""

import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from triptych.router.serving.protocol import USES


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
