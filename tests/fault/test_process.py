"""The router as a process: how it starts, how it ends, and what it says of wrong settings."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.router import check, workers_setting
from tests.fakes.worker import FakeWorker, fake_workers

ROOT = Path(__file__).parents[2]


class Process:
    """`python -m router`; `client` talks to it."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def answers(self, path: str) -> bool:
        try:
            return (await self.client.get(path)).status_code == 200
        except httpx.TransportError:
            return False

    async def until_it_answers(self, path: str) -> None:
        async with asyncio.timeout(20):
            while not await self.answers(path):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def ask(self, text: str) -> httpx.Response:
        return await self.client.post("/v1/embeddings", json={"input": [text], "task": "retrieval.query"})


@asynccontextmanager
async def router_process(*workers: FakeWorker, **settings: str) -> AsyncIterator[Process]:
    """A router of its own in front of `workers`, not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ours = {"ROUTER_WORKERS": json.dumps(workers_setting(workers)), "ROUTER_PORT": str(port), **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", env=os.environ | ours, cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            yield Process(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_starts_by_itself_and_serves() -> None:
    worker = FakeWorker()
    started = time.perf_counter()
    async with fake_workers(worker), router_process(worker) as router:
        await router.until_it_answers("/health")
        answered = time.perf_counter() - started
        await router.until_it_answers("/ready")
        print(f"answers after {answered:.2f} s, ready after {time.perf_counter() - started:.2f} s")
        check(await router.ask("a"), ["a"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_whoever_tells_it_to_stop_it_finishes_what_it_has_accepted(how: signal.Signals) -> None:
    worker = FakeWorker()
    worker.mode = "held"
    async with fake_workers(worker), router_process(worker, ROUTER_LANES="10") as router:
        await router.until_it_answers("/ready")
        asked = [asyncio.create_task(router.ask(f"text {number}")) for number in range(10)]
        async with asyncio.timeout(20):
            while len(worker.items) < 10:
                await worker.until_batches(len(worker.batches) + 1)
        router.process.send_signal(how)
        async with httpx.AsyncClient(base_url=router.client.base_url, trust_env=False) as new:
            async with asyncio.timeout(20):
                while not await refused(new):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert router.process.returncode is None
        worker.gate.set()
        for number, reply in enumerate(await asyncio.gather(*asked)):
            check(reply, [f"text {number}"])
        async with asyncio.timeout(20):
            assert await router.process.wait() in (0, -how)


async def refused(client: httpx.AsyncClient) -> bool:
    """Whether a connection is; each is a new one."""
    try:
        await client.get("/health", headers={"connection": "close"})
    except httpx.TransportError:
        return True
    return False


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ROUTER_PROT": "8080"}, "ROUTER_PROT"),
        ({"ROUTER_PORT": "http"}, "ROUTER_PORT"),
        ({"ROUTER_WORKERS": "127.0.0.1:8101"}, "JSON"),
        ({"ROUTER_WORKERS": "[]"}, "at least one worker"),
    ],
)
async def test_wrong_settings_end_it_with_a_sentence_and_no_traceback(
    settings: dict[str, str], says: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "router",
        env=os.environ | {"ROUTER_WORKERS": json.dumps(workers_setting([FakeWorker(port=1)]))} | settings,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, output = await process.communicate()
    assert process.returncode == os.EX_CONFIG
    assert says in output.decode()
    assert "Traceback" not in output.decode()
