"""The replicas of Ray Serve: the file with the workers, renewed leases, and the directory's place."""

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.ray import directory
from deploy.ray.node_router import WorkersFile
from deploy.ray.ray_private import HEAD_RESOURCE

GROUPS = [{"targets": ["10.0.0.1:8101", "10.0.0.2:8101"], "labels": {"task": "code"}}]


def workers_file(folder: Path, router: str = "r1", **pools: bool) -> WorkersFile:
    return WorkersFile(folder / "router" / "workers.json", router, pools)  # type: ignore[arg-type]


def read(file: WorkersFile) -> Any:
    return json.loads(file.path.read_text())


def groups() -> list[dict[str, Any]]:
    return json.loads(json.dumps(GROUPS))  # type: ignore[no-any-return]


def test_the_file_names_the_workers(tmp_path: Path) -> None:
    file = workers_file(tmp_path)
    file.write(groups())
    [group] = read(file)
    assert sorted(group["targets"]) == GROUPS[0]["targets"]
    assert file.path.parent.stat().st_mode & 0o777 == 0o700


def test_routers_have_different_orders(tmp_path: Path) -> None:
    orders = set()
    for number in range(20):
        file = workers_file(tmp_path, f"r{number}")
        file.write(groups())
        orders.add(tuple(read(file)[0]["targets"]))
    assert len(orders) == 2


def test_an_empty_pool_is_named(tmp_path: Path) -> None:
    file = workers_file(tmp_path, code=True, retrieval=False, rerank=True)
    file.write(groups())
    assert read(file)[1:] == [
        {"targets": [], "labels": {"task": "retrieval", "min_replicas": "1"}},
        {"targets": [], "labels": {"task": "rerank", "min_replicas": "0"}},
    ]


def test_a_deleted_file_is_written_again(tmp_path: Path) -> None:
    file = workers_file(tmp_path)
    file.write(groups())
    shutil.rmtree(file.path.parent)
    file.write(groups())
    assert len(read(file)) == 1


@pytest.mark.parametrize("error", [OSError("disk full"), directory.DirectoryLost("silent")])
async def test_calls_go_on_after_an_error(error: Exception) -> None:
    calls = 0
    done = asyncio.Event()

    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            done.set()
        raise error

    task = asyncio.create_task(directory.repeat(call, 0))
    async with asyncio.timeout(20):
        await done.wait()
    task.cancel()


def test_the_directory_is_on_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it would keep the autoscaler from ending its node."""
    asked: dict[str, Any] = {}
    actor = SimpleNamespace(remote=lambda: "the actor")
    made = SimpleNamespace(options=lambda **options: asked.update(options) or actor)
    monkeypatch.setattr(directory.ray, "remote", lambda _: made)
    assert directory.directory("triptych") == "the actor"
    assert asked["resources"].keys() == {HEAD_RESOURCE}
    # Ray restarts it on the next head.
    assert (asked["num_cpus"], asked["max_restarts"]) == (0, -1)
