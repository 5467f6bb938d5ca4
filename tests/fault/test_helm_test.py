"""The script of `helm test`, against a router."""

import asyncio
import hashlib
import os
import sys

import pytest
import yaml

from tests.fakes.router import running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.deploy.kubernetes.helm import CHART, NoHelm, helm

KEY = "triptych_0123456789abcdef0123456789abcdef0123456789a"


def embed_script(*options: str) -> list[str]:
    """The arguments of the test pod's Python."""
    try:
        objects = yaml.safe_load_all(helm("template", "triptych", CHART, *options))
    except NoHelm as error:
        pytest.skip(str(error))
    [pod] = [one for one in objects if one and one["kind"] == "Pod"]
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    return list(container["args"])


async def run(url: str, key: str | None = None) -> tuple[int | None, str]:
    script, *tasks = embed_script()
    script = script.replace("http://triptych-router:8080", url)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        *tasks,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **({"API_KEY": key} if key else {})},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_it_embeds_through_every_pool() -> None:
    workers = (
        FakeWorker(dimensions=64),
        FakeWorker("text-matching", dimensions=64),
        FakeWorker("code", dimensions=64),
    )
    async with fake_workers(*workers), running_router(*workers) as router:
        status, output = await run(str(router.client.base_url))
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == [
        "code.query",
        "retrieval.query",
        "text-matching",
    ]
    assert all(worker.batches for worker in workers)


async def test_it_fails_if_a_pool_is_away() -> None:
    workers = FakeWorker(dimensions=64), FakeWorker("code", dimensions=64)
    async with fake_workers(*workers), running_router(*workers) as router:
        status, _ = await run(str(router.client.base_url))
    assert status == 1


@pytest.mark.parametrize(("sent", "status"), [(KEY, 0), (None, 1)])
async def test_it_sends_the_key(sent: str | None, status: int) -> None:
    workers = [FakeWorker(pool, dimensions=64) for pool in ("retrieval", "text-matching", "code")]
    keys = [{"name": "test", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
    async with fake_workers(*workers), running_router(*workers, api_keys=keys) as router:
        assert (await run(str(router.client.base_url), sent))[0] == status


def test_it_embeds_through_a_shared_pool() -> None:
    merged = [f"pools.{pool}=null" for pool in ("retrieval", "text-matching", "code")]
    _, *tasks = embed_script("--set", ",".join([*merged, "pools.shared.replicas=1"]))
    assert tasks == ["text-matching"]
