"""What a replica keeps telling the directory, and hearing from it, whatever goes wrong once."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ray._common.constants import HEAD_NODE_RESOURCE_NAME

from deploy.ray import directory as directories
from deploy.ray import router, worker
from deploy.ray.book import Member
from deploy.ray.router import NodeRouter
from deploy.ray.worker import PoolWorker
from tests.unit.deploy.fakes import until


class Directory:
    """Names a worker; raises `fault` instead while there is one."""

    def __init__(self) -> None:
        self.asked = 0
        self.address = "10.0.0.1:8101"
        self.fault: Exception | None = None

    async def ask(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return [{"targets": [self.address], "labels": {"task": "code"}}]


class Router(NodeRouter):
    """A replica that Serve does not end."""

    def __del__(self) -> None: ...


class Worker(PoolWorker):
    """The same of a pool."""

    def __del__(self) -> None: ...


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.01)


@asynccontextmanager
async def following(file: Path, directory: Directory) -> AsyncIterator[NodeRouter]:
    """A router's replica without Ray: its process and its directory are replaced."""
    replica = object.__new__(Router)
    replica._directory, replica._pools, replica._id = directory, {}, "r1"  # type: ignore[assignment]
    replica._file, replica._written, replica._node, replica._url = file, None, "n1", "http://router"
    replica._process = SimpleNamespace(code=None)  # type: ignore[assignment]
    replica._client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    replica._following = asyncio.create_task(replica._follow())
    try:
        yield replica
    finally:
        replica._following.cancel()


def named(file: Path) -> list[str]:
    return [target for group in json.loads(file.read_text()) for target in group["targets"]]


@pytest.mark.parametrize("address", ["10.0.0.1:8101", "10.0.0.2:8101"], ids=["unchanged", "changed"])
async def test_a_list_that_was_cleared_away_is_written_again(tmp_path: Path, address: str) -> None:
    file, directory = tmp_path / "router" / "workers.json", Directory()
    async with following(file, directory) as replica:
        await until(file.exists)
        shutil.rmtree(file.parent)
        directory.address = address
        await until(file.exists)
        assert named(file) == [address]
        assert file.parent.stat().st_mode & 0o777 == 0o700
        await replica.check_health()


async def test_a_router_whose_list_cannot_be_written_tries_again(tmp_path: Path) -> None:
    file, directory = tmp_path / "router" / "workers.json", Directory()
    # As on a full disk: an error of the operating system.
    file.parent.touch()
    async with following(file, directory):
        await until(lambda: directory.asked > 2)
        file.parent.unlink()
        await until(file.exists)


async def test_a_router_that_follows_nobody_is_not_healthy(tmp_path: Path) -> None:
    async with following(tmp_path / "workers.json", Directory()) as replica:
        replica._following.cancel()
        await asyncio.wait([replica._following])
        with pytest.raises(RuntimeError, match="told of workers"):
            await replica.check_health()


async def test_a_worker_beats_on_after_any_error_and_is_not_healthy_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ready(*_: Any) -> bool:
        return True

    monkeypatch.setattr(worker, "is_ready", ready)
    directory = Directory()
    replica = object.__new__(Worker)
    replica._directory, replica._token = directory, "a-token"  # type: ignore[assignment]
    replica._member = Member("w1", "code", "10.0.0.1:8101", "n1")
    replica._process = SimpleNamespace(code=None)  # type: ignore[assignment]
    directory.fault = OSError("too many open files")
    replica._beating = asyncio.create_task(replica._beat())
    await until(lambda: directory.asked > 2)
    await replica.check_health()
    replica._beating.cancel()
    await asyncio.wait([replica._beating])
    with pytest.raises(RuntimeError, match="told of the worker"):
        await replica.check_health()


def test_the_directory_is_on_the_head_or_it_would_keep_a_node_from_being_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}
    actor = SimpleNamespace(remote=lambda: "the actor")
    made = SimpleNamespace(options=lambda **options: asked.update(options) or actor)
    monkeypatch.setattr(directories.ray, "remote", lambda _: made)
    assert directories.directory("triptych") == "the actor"
    assert asked["resources"].keys() == {HEAD_NODE_RESOURCE_NAME}
    assert asked["num_cpus"] == 0
    # After the head's end it is on the next one.
    assert asked["max_restarts"] == -1
