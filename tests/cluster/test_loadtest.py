"""A load test whose load comes from Ray tasks."""

from pathlib import Path

import pytest

from tests.cluster.raylets import RayCluster
from tests.fakes.router import PATIENT, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.loadtest import loadtest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_load_from_ray_tasks(cluster: RayCluster, tmp_path: Path) -> None:
    worker = FakeWorker(dimensions=64)
    async with fake_workers(worker), running_router(worker, **PATIENT) as router:
        arguments = ("--ray", cluster.address, "--processes", "2", "--ray-cpus", "2")
        load = ("--rate", "10", "--arrivals", "constant", "--seconds", "3")
        done = await loadtest(tmp_path, "run", str(router.client.base_url), *arguments, *load)
    assert done.code == 0, done.output
    assert (done.count("sent"), done.failures()) == (30, {})
    [measured] = done.run.segments
    assert [process.name for process in measured.processes] == ["Ray task 1", "Ray task 2"]
