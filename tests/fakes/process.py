"""The router as one process or several."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.router import workers_setting
from tests.fakes.worker import FakeWorker
from triptych.router.serving.listening import listen
from triptych.router.serving.server import Server
from triptych.router.settings import RouterSettings

ROOT = Path(__file__).parents[2]


class Process:
    """`python -m router`; `client` talks to it, also after a restart."""

    process: Any

    def __init__(self, environment: dict[str, str], client: httpx.AsyncClient) -> None:
        self.client = client
        self._environment = environment

    async def start(self) -> None:
        """Start it without waiting."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "triptych.router", env=os.environ | self._environment, cwd=ROOT
        )

    async def answers(self, path: str) -> bool:
        """Whether it answers 200."""
        try:
            return (await self.client.get(path)).status_code == 200
        except httpx.TransportError:
            return False

    async def until_it_answers(self, path: str) -> None:
        """Poll until it answers 200."""
        async with hang_guard():
            while not await self.answers(path):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def ask(self, text: str) -> httpx.Response:
        """Embed one text."""
        return await self.client.post("/v1/embeddings", json={"input": [text], "task": "retrieval.query"})

    async def ended(self, *signals: signal.Signals) -> int:
        """Send `signals` one after the other, and wait for the exit code."""
        for number in signals:
            self.process.send_signal(number)
        async with hang_guard():
            return await self.process.wait()


@asynccontextmanager
async def router_process(*workers: FakeWorker, **settings: str) -> AsyncIterator[Process]:
    """A router process in front of `workers`, started without waiting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        "ROUTER_WORKERS": json.dumps(workers_setting(workers)),
        "ROUTER_PORT": str(port),
        **settings,
    }
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=GUARD_SECONDS, trust_env=False) as client:
        router = Process(environment, client)
        await router.start()
        try:
            yield router
        finally:
            if router.process.returncode is None:
                router.process.kill()
            await router.process.wait()


class Here:
    """The server of a router in the test's own process; a signal is a call."""

    returncode: int | None = None

    def __init__(self, server: Server, sockets: list[socket.socket]) -> None:
        self._server = server
        self._serving = asyncio.create_task(server.serve(sockets))

    def send_signal(self, number: signal.Signals) -> None:
        self._server.handle_exit(number, None)

    def kill(self) -> None:
        self._serving.cancel()

    async def wait(self) -> int:
        await self._serving
        self.returncode = 0
        return 0


@asynccontextmanager
async def router_here(*workers: FakeWorker, **settings: str) -> AsyncIterator[Process]:
    """The same as `router_process` for tests that need no process of its own."""
    with pytest.MonkeyPatch.context() as environment:
        for name, text in settings.items():
            environment.setenv(name, text)
        server = Server(RouterSettings(workers=workers_setting(workers)))  # type: ignore[arg-type]
    sockets = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=GUARD_SECONDS, trust_env=False) as client:
        router = Process({}, client)
        router.process = Here(server, sockets)
        try:
            yield router
        finally:
            if router.process.returncode is None:
                router.process.kill()


async def until_refused(url: str) -> None:
    """Wait until connections are refused."""
    new_connections = httpx.Limits(max_keepalive_connections=0)
    async with hang_guard(), httpx.AsyncClient(trust_env=False, limits=new_connections) as client:
        while True:
            try:
                await client.get(f"{url}/live")
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.01)
