"""A deployment on a cluster of three raylets: started, damaged, scaled and upgraded under load.

The tests share one deployment and run in the order of the file. Only `make test-cluster` runs those marked
`long`, and has real engines for both pools; otherwise only `code` has.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import pytest_asyncio

from tests.cluster.load import Load, vectors
from tests.cluster.raylets import QUICK, START_SECONDS, RayCluster
from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.deploy.ray.status import Status
from triptych.workers.shared.contract import PoolName

pytestmark = pytest.mark.asyncio(loop_scope="session")

RETRIEVAL = "ray::ServeReplica:triptych-retrieval"


class Deployment:
    """The deployment under test: its configuration and the right vectors."""

    def __init__(self, cluster: RayCluster, variants: dict[str, Path]) -> None:
        self.cluster = cluster
        self.variants = variants
        # The head has no worker, and no test here kills it.
        self.url = f"http://127.0.0.2:{cluster.router_port}"
        self.retrieval: dict[str, Any] = {
            "model": str(variants["old"] / "retrieval"),
            "replicas": 2,
            "replicas_per_node": 2,
            "surge_percent": 50,
            "env": QUICK,
        }
        self.code: dict[str, Any] = {
            "model": str(variants["old"] / "code"),
            "replicas": {
                "min": 0,
                "max": 2,
                "tokens_per_second": 2000,
                "up_seconds": 1,
                "down_seconds": 8,
                "to_zero_seconds": 8,
            },
        }
        self.write()

    def write(self) -> Path:
        """Write the configuration to its file."""
        self.config = self.cluster.config("deployment", {"retrieval": self.retrieval, "code": self.code})
        return self.config

    def pids(self, title: str) -> set[int]:
        return {process.pid for process in self.cluster.processes(title)}

    def load(self) -> Load:
        return Load(self.url, "retrieval.query")

    async def until_replicas(self, pool: PoolName, count: int) -> Status:
        """Wait until `count` workers serve a pool, and no replica starts or stops."""

        def holds(status: Status) -> bool:
            its = status.pools[pool]
            return len(its.replicas) == count and set(its.states) <= {"RUNNING"}

        return await self.cluster.until(self.config, holds)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def deployment(cluster: RayCluster, variants: dict[str, Path]) -> AsyncIterator[Deployment]:
    deployment = Deployment(cluster, variants)
    await cluster.up(deployment.config)
    deployment.right = await vectors(deployment.url, "retrieval.query")
    yield deployment


async def test_up_serves_on_every_node(deployment: Deployment) -> None:
    status = await deployment.cluster.status(deployment.config)
    assert [len(pool["replicas"]) for pool in status["pools"].values()] == [2, 0]
    assert len(status["routers"]) == status["nodes"] == 3
    for url in status["routers"]:
        np.testing.assert_array_equal(await vectors(url, "retrieval.query"), deployment.right)
    async with httpx.AsyncClient(trust_env=False) as client:
        [group] = (await client.get(f"{deployment.url}/targets")).json()
        assert (await client.get(f"{deployment.url}/ready")).status_code == 200
        # Without the token a worker refuses.
        assert (await client.get(f"http://{group['targets'][0]}/v1/info")).status_code == 401
    assert sorted(group["targets"]) == sorted(
        replica["address"] for replica in status["pools"]["retrieval"]["replicas"]
    )
    before = deployment.pids("ray::ServeReplica:triptych-")
    await deployment.cluster.up(deployment.config)
    assert deployment.pids("ray::ServeReplica:triptych-") == before, "the same configuration changes nothing"


async def test_dead_replica_is_replaced(deployment: Deployment) -> None:
    replica = deployment.cluster.processes(RETRIEVAL)[0]
    below = replica.children(recursive=True)
    assert len(below) >= 2
    async with deployment.load() as load:
        replica.kill()
        # A process that is left would keep its GPU.
        _, alive = await asyncio.to_thread(psutil.wait_procs, below, GUARD_SECONDS)
        assert not alive
        await deployment.until_replicas("retrieval", 2)
    load.check(deployment.right)


@pytest.mark.long
async def test_dead_worker_ends_its_replica(deployment: Deployment) -> None:
    replica = deployment.cluster.processes(RETRIEVAL)[0]
    async with deployment.load() as load:
        below = replica.children(recursive=True)
        [worker] = [process for process in below if "triptych.workers" in process.cmdline()]
        worker.kill()
        await deployment.cluster.until(
            deployment.config, lambda status: replica.pid not in deployment.pids(RETRIEVAL)
        )
        await deployment.until_replicas("retrieval", 2)
    load.check(deployment.right)


@pytest.mark.long
async def test_controller_and_directory_die(deployment: Deployment) -> None:
    async with deployment.load() as load:
        for title in ("ray::ServeController", "ray::Directory"):
            [process] = deployment.cluster.processes(title)
            process.kill()
            await asyncio.to_thread(process.wait, GUARD_SECONDS)
        await deployment.cluster.until(
            deployment.config,
            lambda status: status.routers_application == "RUNNING" and len(status.routers) == 3,
        )
        await deployment.until_replicas("retrieval", 2)
    load.check(deployment.right)


async def test_pool_scales_from_and_to_zero(deployment: Deployment) -> None:
    async with deployment.load() as other:
        # The router holds this request until a replica has started.
        right = await vectors(deployment.url, "code.query")
        async with Load(deployment.url, "code.query") as load:
            await deployment.until_replicas("code", 1)
        load.check(right)
        status = await deployment.until_replicas("code", 0)
        assert len(status.pools["retrieval"].replicas) == 2
    other.check(deployment.right)


async def test_upgrade_and_a_failed_one(deployment: Deployment) -> None:
    new = deployment.variants["new"]
    # A checkpoint of another task would give wrong vectors.
    deployment.retrieval |= {"model": str(new / "code")}
    serving = deployment.pids(RETRIEVAL)
    async with deployment.load() as load:
        code, said = await deployment.cluster.deploy(
            "up", deployment.write(), "--timeout", str(START_SECONDS)
        )
        assert code == 1, said
        assert "The rollout has stopped" in said
        assert serving <= deployment.pids(RETRIEVAL)
    load.check(deployment.right)
    deployment.retrieval |= {"model": str(new / "retrieval")}
    async with deployment.load() as load:
        await deployment.cluster.up(deployment.write())
    old, deployment.right = deployment.right, await vectors(deployment.url, "retrieval.query")
    assert float(old[0] @ deployment.right[0]) < 0.99
    assert set(load.check(old, deployment.right)) == {0, 1}
    assert not serving & deployment.pids(RETRIEVAL)


@pytest.mark.long
async def test_scaling_fails_no_request(deployment: Deployment) -> None:
    async with deployment.load() as load:
        for count in (3, 1, 2):
            code, said = await deployment.cluster.deploy("scale", deployment.config, f"retrieval={count}")
            assert code == 0, said
            await deployment.until_replicas("retrieval", count)
    load.check(deployment.right)


@pytest.mark.long
async def test_node_dies(deployment: Deployment) -> None:
    status = await deployment.until_replicas("retrieval", 2)
    last = deployment.cluster.nodes[-1]
    assert any(replica.node == last.address for replica in status.pools["retrieval"].replicas)
    async with deployment.load() as load:
        last.kill()
        await deployment.cluster.until(
            deployment.config,
            lambda status: {replica.node for replica in status.pools["retrieval"].replicas} == {"127.0.0.3"},
        )
        await deployment.until_replicas("retrieval", 2)
        await deployment.cluster.until(deployment.config, lambda status: len(status.routers) == 2)
        again = await deployment.cluster.add("127.0.0.5")
        deployment.cluster.nodes.remove(again)
        await deployment.cluster.until(deployment.config, lambda status: len(status.routers) == 3)
    load.check(deployment.right)


async def test_down_leaves_no_process(deployment: Deployment) -> None:
    replicas = deployment.cluster.processes("ray::ServeReplica:triptych-")
    ours = [*replicas, *deployment.cluster.processes("ray::Directory")]
    ours += deployment.cluster.processes("ray::ServeController")
    ours += [child for replica in replicas for child in replica.children(recursive=True)]
    code, said = await deployment.cluster.deploy("down", deployment.config)
    assert code == 0, said
    _, alive = await asyncio.to_thread(psutil.wait_procs, ours, GUARD_SECONDS)
    assert not alive
    status = await deployment.cluster.status(deployment.config)
    assert not any(pool["replicas"] for pool in status["pools"].values())
