"""The router as one process or several."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.router import workers_setting
from tests.fakes.worker import FakeWorker
from triptych.loadtests.server_processes import free_port

ROOT = Path(__file__).parents[2]


class Process:
    """`python -m router`; `client` talks to it."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

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
    port = free_port()
    environment = {
        **os.environ,
        "ROUTER_WORKERS": json.dumps(workers_setting(workers)),
        "ROUTER_PORT": str(port),
        **settings,
    }
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=GUARD_SECONDS, trust_env=False) as client:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "triptych.router", env=environment, cwd=ROOT
        )
        try:
            yield Process(process, client)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


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
