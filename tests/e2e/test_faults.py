"""What clients see of a deployment whose processes are killed, and what such a deployment leaves behind."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from loadtests.server_processes import Deployment
from tests.e2e.conftest import POOL
from tests.processes import descendants, name_of, pidfds_of, wait_gone

REQUESTS_A_SECOND = 40


@contextmanager
def deployments(variant: Path, folder: Path, *replicas: int) -> Iterator[list[Deployment]]:
    """Deployments of one pool with so many replicas each, started together."""
    started: list[Deployment] = []
    try:
        for number, count in enumerate(replicas):
            its = {"DEPLOY_POOLS": f"{POOL}={count}", "DEPLOY_VARIANTS": f"{POOL}={variant}"}
            started.append(Deployment(folder / f"log-{number}", folder / f"state-{number}", **its))
        yield [deployment.wait_until_ready() for deployment in started]
    finally:
        for deployment in started:
            deployment.kill()


@pytest.fixture(scope="module")
def fresh(variant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Deployment]]:
    """Deployments of a single worker for a test to end."""
    with deployments(variant, tmp_path_factory.mktemp("fresh"), 1, 1) as started:
        yield iter(started)


def worker_pids(deployment: Deployment) -> list[int]:
    return [pid for pid in descendants(deployment.pid) if name_of(pid).endswith("-m workers ")]


async def wait_for_workers(deployment: Deployment, count: int) -> None:
    """Return once so many workers listen and are ready."""
    headers = {"authorization": f"Bearer {deployment.token}"}
    async with httpx.AsyncClient(headers=headers, timeout=10) as client:
        while True:
            ready = 0
            for port in range(deployment.worker_port, deployment.worker_port + count):
                try:
                    ready += (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
                except httpx.TransportError:
                    break
            if ready == count:
                return
            await asyncio.sleep(0.2)


async def embed(client: httpx.AsyncClient, text: str) -> np.ndarray:
    body = {"input": text, "task": "retrieval.query"}
    reply = await client.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["data"][0]["embedding"], np.float32)


async def test_no_client_sees_a_worker_that_is_killed_under_load(variant: Path, tmp_path: Path) -> None:
    """Requests come at a fixed rate, whatever becomes of those before them, until the worker is back."""
    with deployments(variant, tmp_path, 2) as [deployment]:
        await kill_a_worker_under_load(deployment)


async def kill_a_worker_under_load(deployment: Deployment) -> None:
    async with httpx.AsyncClient(base_url=deployment.url, timeout=60) as client:
        texts = [f"text {number}" for number in range(20)]
        expected = [await embed(client, text) for text in texts]
        await wait_for_workers(deployment, 2)
        before = worker_pids(deployment)
        sent: list[asyncio.Task[np.ndarray]] = []
        under_load = asyncio.Event()

        async def load() -> None:
            while True:
                sent.append(asyncio.create_task(embed(client, texts[len(sent) % len(texts)])))
                if len(sent) == 2 * REQUESTS_A_SECOND:
                    under_load.set()
                await asyncio.sleep(1 / REQUESTS_A_SECOND)

        loading = asyncio.create_task(load())
        await under_load.wait()
        killed = os.pidfd_open(before[0])
        os.kill(before[0], signal.SIGKILL)
        assert await asyncio.to_thread(wait_gone, [killed])
        async with asyncio.timeout(180):
            await wait_for_workers(deployment, 2)
        assert set(worker_pids(deployment)) != set(before)
        loading.cancel()
        results = await asyncio.gather(*sent, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    assert failures == []
    for number, vector in enumerate(results):
        np.testing.assert_allclose(vector, expected[number % len(texts)], atol=1e-5)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_deployment(fresh: Iterator[Deployment], how: signal.Signals) -> None:
    deployment = next(fresh)
    below = descendants(deployment.pid)
    names = [name_of(pid) for pid in below]
    for expected in ("-m router", "-m workers", "EngineCore"):
        assert any(expected in name for name in names), names
    pidfds = pidfds_of(below)
    os.kill(deployment.pid, how)
    assert wait_gone(pidfds)
    assert deployment.wait() == (0 if how == signal.SIGINT else -how)
