"""What clients see of a worker that is killed, and what a deployment leaves behind."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import POOLS
from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.router import eventually
from tests.processes import descendants, name_of, pidfds_of, wait_gone
from triptych.loadtests.server_processes import Deployment

CLIENTS = 3
TEXTS = [f"text {number}" for number in range(20)]


def workers_of(deployment: Deployment) -> set[int]:
    return {pid for pid in descendants(deployment.pid) if name_of(pid).endswith("-m triptych.workers ")}


def serves_retrieval(pid: int) -> bool:
    return b"WORKER_TASK=retrieval" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


async def until_all_workers_are_ready(deployment: Deployment) -> None:
    headers = {"authorization": f"Bearer {deployment.token}"}
    async with hang_guard(), httpx.AsyncClient(headers=headers, timeout=GUARD_SECONDS) as client:
        for port in range(deployment.worker_port, deployment.worker_port + sum(POOLS.values())):
            while True:
                try:
                    if (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)


async def embed(client: httpx.AsyncClient, text: str) -> np.ndarray:
    reply = await client.post("/v1/embeddings", json={"input": text, "task": "retrieval.query"})
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["data"][0]["embedding"], np.float32)


@pytest.mark.ends_worker
async def test_killed_worker_fails_no_request(deployment: Deployment) -> None:
    """Clients ask one text after another until the worker is back."""
    async with httpx.AsyncClient(base_url=deployment.url, timeout=GUARD_SECONDS) as client:
        expected = np.array([await embed(client, text) for text in TEXTS])
        answered, back = 0, asyncio.Event()

        async def ask() -> None:
            nonlocal answered
            while not back.is_set():
                number = answered % len(TEXTS)
                answered += 1
                # In bfloat16 a vector depends a little on its batch.
                alike = expected @ await embed(client, TEXTS[number])
                assert (np.argmax(alike), alike.max()) == (number, pytest.approx(1, abs=1e-4))
                # The engine that starts needs the processors, too.
                await asyncio.sleep(0.05)

        async def kill() -> None:
            await eventually(lambda: answered >= 2 * CLIENTS)
            before = workers_of(deployment)
            victim = next(pid for pid in before if serves_retrieval(pid))
            killed = pidfds_of([victim])
            os.kill(victim, signal.SIGKILL)
            assert await asyncio.to_thread(wait_gone, killed)
            await until_all_workers_are_ready(deployment)
            assert before - workers_of(deployment) == {victim}
            back.set()

        await asyncio.gather(kill(), *(ask() for _ in range(CLIENTS)))


@pytest.mark.ends_worker
def test_stopped_deployment_leaves_nothing(deployment: Deployment) -> None:
    below = descendants(deployment.pid)
    names = [name_of(pid) for pid in below]
    for expected in ("-m triptych.router", "-m triptych.workers", "EngineCore"):
        assert any(expected in name for name in names), names
    pidfds = pidfds_of(below)
    os.kill(deployment.pid, signal.SIGINT)
    assert wait_gone(pidfds)
    assert deployment.wait() == 0
