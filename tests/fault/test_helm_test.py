"""The script of `helm test`, against a router."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Sequence

import pytest
import yaml

from tests.fakes.router import running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.deploy.kubernetes.helm import NoHelm, template
from triptych.workers.shared.contract import POOLS

KEY = "triptych_0123456789abcdef0123456789abcdef0123456789a"


def embed_script(*options: str) -> list[str]:
    """The arguments of the test pod's Python."""
    try:
        objects = yaml.safe_load_all(template(*options))
    except NoHelm as error:
        pytest.skip(str(error))
    [pod] = [one for one in objects if one and one["kind"] == "Pod"]
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    return list(container["args"])


async def run(url: str, key: str | None) -> int:
    script, *tasks = embed_script()
    argv = [sys.executable, "-c", script.replace("http://triptych-router:8080", url), *tasks]
    env = os.environ | ({"API_KEY": key} if key else {})
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL, env=env)
    return await process.wait()


@pytest.mark.parametrize(
    ("pools", "sent", "status"),
    [(POOLS, KEY, 0), (POOLS, None, 1), (POOLS[:2], KEY, 1)],
    ids=["right", "no key", "a pool is away"],
)
async def test_it_embeds_through_every_pool(pools: Sequence[str], sent: str | None, status: int) -> None:
    workers = [FakeWorker(pool, dimensions=64) for pool in pools]
    keys = [hashlib.sha256(KEY.encode()).hexdigest()]
    async with fake_workers(*workers), running_router(*workers, api_keys=keys) as router:
        assert await run(str(router.client.base_url), sent) == status
    assert all(worker.batches for worker in workers) or status


def test_it_embeds_through_a_shared_pool() -> None:
    merged = [f"pools.{pool}=null" for pool in ("retrieval", "text-matching", "code")]
    _, *tasks = embed_script("--set", ",".join([*merged, "pools.shared.replicas=1"]))
    assert tasks == ["text-matching"]
