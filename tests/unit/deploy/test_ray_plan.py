"""`triptych ray plan`, and the nodes it gets."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from tests.exit_status import exit_status
from triptych.deploy.ray import __main__ as command
from triptych.deploy.ray import demo
from triptych.deploy.ray.config import ConfigError
from triptych.deploy.ray.nodes import nodes_of_cluster, parse_nodes

ROOT = Path(__file__).parents[3]
GPUS = "2xcpus=8,gpus=1,gpu_memory=80"


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("connected to a cluster"))


def written(folder: Path, **pools: dict[str, Any]) -> str:
    path = folder / "config.yaml"
    full = {name: {"model": "jinaai/jina-embeddings-v4", **its} for name, its in pools.items()}
    path.write_text(yaml.safe_dump({"pools": full}))
    return str(path)


@pytest.mark.parametrize(("replicas", "code"), [(2, 0), (5, 1)])
def test_exit_code_says_whether_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], replicas: int, code: int
) -> None:
    config = written(tmp_path, code={"gpus": 0.5, "replicas": replicas})
    assert exit_status(command.cli, "plan", "--config", config, "--nodes", GPUS) == code
    assert exit_status(command.cli, "plan", "--config", config, "--nodes", GPUS, "--json") == code
    out = capsys.readouterr().out
    found = json.loads(out[out.index("\n{") :])
    assert found["fits"] == (code == 0)
    assert found["pools"]["code"]["fewest_fit"] == min(replicas, 4)


def test_nodes_of_the_cluster_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    monkeypatch.setattr(ray, "nodes", lambda: [row(Resources={"CPU": 4.0})])
    config = written(tmp_path, code={"replicas": 5})
    assert exit_status(command.cli, "plan", "--config", config, "--address", "10.0.0.1:6379") == 1
    assert asked == ["10.0.0.1:6379"]


def test_demo_is_planned_but_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make", lambda: pytest.fail("the demo was made"))
    assert exit_status(command.cli, "plan", "--nodes", "cpus=8") == 0


def test_nodes_of_the_command_line() -> None:
    words = ["2xcpus=16,gpus=1,gpu_memory=80,memory=128,label:ray.io/x=y,resource:a=1", "name=head,cpus=0"]
    first, head = parse_nodes(words)
    assert (first.name, first.count, first.cpus, first.gpus) == ("node-1", 2, 16, 1)
    assert (first.gpu_memory, first.memory) == (80, 128)
    assert (first.labels, first.resources) == ({"ray.io/x": "y"}, {"a": 1})
    assert (head.name, head.count, head.cpus, head.gpu_memory) == ("head", 1, 0, None)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["2xgpus=1"], "2xgpus=1: cpus"),
        (["cpus=4", "cpus=many"], "cpus=many: cpus"),
        (["cpus=4,gpus=0.5"], "gpus"),
        (["cpus=4,gpu=1"], "gpu_memory"),
        (["0xcpus=4"], "count"),
        (["cpus=-1"], "cpus"),
    ],
)
def test_wrong_node_is_named(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_nodes(words)
    assert exit_status(command.cli, "plan", *(f"--nodes={word}" for word in words)) == os.EX_CONFIG
    assert named in capsys.readouterr().err


def row(**changes: Any) -> dict[str, Any]:
    """A node in the form of `ray.nodes()` of Ray 2.60."""
    resources = {"CPU": 16.0, "GPU": 2.0, "memory": 64.0 * 2**30, "object_store_memory": 1e9, "fast": 1.0}
    return {"Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": resources, "Labels": {}} | changes


def test_living_nodes_are_read_from_the_cluster() -> None:
    [node] = nodes_of_cluster([row(Labels={"gpu_memory_gib": "80"}), row(Alive=False)])
    assert (node.name, node.cpus, node.gpus, node.memory) == ("10.0.0.1", 16, 2, 64)
    assert (node.gpu_memory, node.resources["fast"]) == (80, 1)
    [empty] = nodes_of_cluster([row(Resources={})])
    assert (empty.cpus, empty.gpus, empty.memory, empty.gpu_memory) == (0, 0, None, None)
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1: gpu_memory"):
        nodes_of_cluster([row(Labels={"gpu_memory_gib": "much"})])
