"""What clients see of a worker that is killed, and what a deployment leaves behind."""

import asyncio
import os
import signal

import psutil
import pytest

from tests.cluster.load import Load, vectors
from tests.e2e.conftest import POOLS
from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import eventually
from tests.processes import command, descendants, wait_gone
from triptych.deploy.common.readiness import is_ready
from triptych.loadtests.server_processes import LOOPBACK, Deployment


def workers_of(deployment: Deployment) -> set[psutil.Process]:
    return {its for its in descendants(deployment.pid) if command(its).endswith("-m triptych.workers")}


def serves_retrieval(worker: psutil.Process) -> bool:
    return worker.environ()["WORKER_TASK"] == "retrieval"


async def until_all_workers_are_ready(deployment: Deployment) -> None:
    async with hang_guard():
        for port in range(deployment.worker_port, deployment.worker_port + sum(POOLS.values())):
            while not await is_ready(LOOPBACK, port, deployment.token):  # noqa: ASYNC110
                await asyncio.sleep(0.2)


@pytest.mark.ends_worker
async def test_killed_worker_fails_no_request(deployment: Deployment) -> None:
    right = await vectors(deployment.url, "retrieval.query")
    async with Load(deployment.url, "retrieval.query") as load:
        await eventually(lambda: load.answered >= 6)
        before = workers_of(deployment)
        victim = next(filter(serves_retrieval, before))
        victim.kill()
        assert await asyncio.to_thread(wait_gone, [victim])
        await until_all_workers_are_ready(deployment)
        assert before - workers_of(deployment) == {victim}
    load.check(right)


@pytest.mark.ends_worker
def test_stopped_deployment_leaves_nothing(deployment: Deployment) -> None:
    below = descendants(deployment.pid)
    names = [command(process) for process in below]
    for expected in ("-m triptych.router", "-m triptych.workers", "EngineCore"):
        assert any(expected in name for name in names), names
    os.kill(deployment.pid, signal.SIGINT)
    assert wait_gone(below)
    assert deployment.wait() == 0
