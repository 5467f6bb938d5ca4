"""The head of the cluster dies, and the other nodes serve on."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.load import Load, vectors
from tests.cluster.raylets import QUICK, cluster_of
from triptych.deploy.ray.book import LEASE_SECONDS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]


async def test_nodes_serve_without_the_head(tmp_path: Path, variants: dict[str, Path]) -> None:
    with cluster_of(tmp_path) as cluster:
        await cluster.start()
        model = str(variants["old"] / "retrieval")
        pool = {"model": model, "replicas": 2, "replicas_per_node": 1, "env": QUICK}
        await cluster.up(cluster.config("deployment", {"retrieval": pool}))
        url = f"http://127.0.0.3:{cluster.router_port}"
        right = await vectors(url, "retrieval.query")
        async with Load(url, "retrieval.query") as load:
            cluster.nodes[0].kill()
            # Long enough for all leases to end.
            await asyncio.sleep(2 * LEASE_SECONDS)
        load.check(right)
        np.testing.assert_array_equal(await vectors(url, "retrieval.query"), right)
