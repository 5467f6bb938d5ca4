"""Fixtures: one cluster for all cluster tests, and the variants that it serves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import ray

from tests.cluster.raylets import RayCluster, cluster_of
from tests.exit_status import exit_status
from triptych.workers.checkpoints.__main__ import cli


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Nano variants of two checkpoints, `old` and `new`: each a folder with one for each task."""
    made = {}
    for seed, name in enumerate(("old", "new")):
        folder = tmp_path_factory.mktemp(f"checkpoints-{name}")
        upstream, made[name] = folder / "upstream", folder / "variants"
        assert exit_status(cli, "tiny", "--nano", "--seed", seed, upstream) == 0
        assert exit_status(cli, "merge", upstream, made[name], "--dtype", "float32") == 0
    return made


# Not for the session: other tests need the memory and the CPUs.
@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RayCluster]:
    """Three raylets; this process is connected to them."""
    with cluster_of(tmp_path_factory.mktemp("cluster")) as cluster:
        await cluster.start()
        yield cluster
    assert not ray.is_initialized()  # type: ignore[no-untyped-call]
