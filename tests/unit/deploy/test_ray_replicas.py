"""The replicas of Ray Serve: what a router reports and reads, its own key, and renewed leases."""

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.hang_guard import hang_guard
from triptych.deploy.common.environments import settings_env, with_own_key
from triptych.deploy.ray import directory
from triptych.deploy.ray.node_router import read_metrics, write_workers
from triptych.deploy.ray.pressure import Pressure
from triptych.deploy.ray.ray_private import HEAD_RESOURCE


def written(folder: Path, router: str = "r1", **pools: bool) -> Any:
    path = folder / "router" / "workers.json"
    groups = [{"targets": ["10.0.0.1:8101", "10.0.0.2:8101"], "labels": {"task": "code"}}]
    write_workers(path, groups, pools, router)  # type: ignore[arg-type]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    return json.loads(path.read_text())


def test_file_names_workers_and_empty_pools(tmp_path: Path) -> None:
    [code, *empty] = written(tmp_path, code=True, retrieval=False, rerank=True)
    assert sorted(code["targets"]) == ["10.0.0.1:8101", "10.0.0.2:8101"]
    assert empty == [
        {"targets": [], "labels": {"task": "retrieval", "min_replicas": "1"}},
        {"targets": [], "labels": {"task": "rerank", "min_replicas": "0"}},
    ]


def test_pools_are_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    def order(**pools: bool) -> list[str]:
        return [group["labels"]["task"] for group in written(tmp_path, **pools)]

    assert order(retrieval=False, code=True, rerank=True) == ["retrieval", "code", "rerank"]
    # A pool that is being removed is not in the configuration any more.
    assert order(retrieval=False) == ["retrieval", "code"]


def test_routers_have_different_orders(tmp_path: Path) -> None:
    assert len({str(written(tmp_path, f"r{number}")) for number in range(20)}) == 2


def test_only_a_change_is_written(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "router" / "workers.json"
    before = path.stat()
    written(tmp_path)
    assert path.stat() == before
    shutil.rmtree(path.parent)
    assert written(tmp_path)


@pytest.mark.parametrize("error", [OSError("disk full"), directory.DirectoryLost("silent")])
async def test_calls_go_on_after_an_error(error: Exception) -> None:
    calls: asyncio.Queue[None] = asyncio.Queue()

    async def call() -> None:
        calls.put_nowait(None)
        raise error

    task = asyncio.create_task(directory.repeat(call, 0))
    async with hang_guard():
        for _ in range(4):
            await calls.get()
    task.cancel()


PAGE = """
triptych_router_processes 2.0
triptych_router_replica_state{pool="code",replica="a:1",state="ready"} 2.0
triptych_router_replica_state{pool="code",replica="a:1",state="down"} 0.0
triptych_router_replica_state{pool="code",replica="b:1",state="ready"} 1.0
triptych_router_replica_state{pool="code",replica="b:1",state="down"} 1.0
triptych_router_queue_tokens{pool="code",class="bulk"} 30.0
triptych_router_queue_tokens{pool="code",class="interactive"} 3.0
triptych_router_queue_tokens{pool="retrieval",class="bulk"} 0.0
triptych_router_replica_tokens_in_flight{pool="code",replica="a:1"} 7.0
triptych_router_requested_tokens_total{pool="code"} 9.0
"""


def test_metrics_of_a_router_are_read() -> None:
    report = read_metrics(PAGE, "r", "url")
    assert report.known == {"a:1", "b:1"}
    # One of two processes does not use b:1 yet.
    assert report.serving == {"a:1"}
    assert report.pressures == {"code": Pressure(33, 7), "retrieval": Pressure()}
    assert report.arrived == {"code": 9.0}


@pytest.mark.parametrize("env", [{}, {"ROUTER_API_KEYS": ""}, settings_env("ROUTER_", {"api_keys": []})])
def test_router_without_keys_stays_open(env: dict[str, str]) -> None:
    assert with_own_key(env, "deploy") == (env, None)


def test_directory_is_on_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it would keep the autoscaler from ending its node."""
    asked: dict[str, Any] = {}
    actor = SimpleNamespace(remote=lambda: "the actor")
    made = SimpleNamespace(options=lambda **options: asked.update(options) or actor)
    monkeypatch.setattr(directory.ray, "remote", lambda _: made)
    assert directory.directory("triptych") == "the actor"
    assert asked["resources"].keys() == {HEAD_RESOURCE}
    # Ray restarts it on the next head.
    assert (asked["num_cpus"], asked["max_restarts"]) == (0, -1)
