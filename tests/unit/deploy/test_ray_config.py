"""The configuration of a deployment on Ray, and its errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.ray.config import ConfigError, environment, parse_config, read_config
from deploy.ray.pool_worker import worker_environment
from router.settings import RouterSettings
from workers.settings import WorkerSettings

EXAMPLES = Path(__file__).parents[3] / "deploy" / "ray" / "examples"


def pools(**its: Any) -> dict[str, Any]:
    return {"pools": {"code": {"model": "m", **its}}}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "pools: Field required"),
        ({"pools": {}}, "pools: "),
        ({"pools": {"text": {"model": "m"}}}, "'retrieval', 'text-matching', 'code' or 'rerank'"),
        (pools(replica=1), "pools.code.replica: Extra inputs"),
        (pools(replicas=0), "to scale to zero write {min: 0, max: ...}"),
        (pools(replicas={"min": 3, "max": 2, "tokens_per_second": 1}), r"min \(3\) is over max \(2\)"),
        (pools(gpus=2), "an engine uses one GPU unless tensor_parallel says more"),
        (pools(gpus=1, tensor_parallel=2), r"gpus \(1\) must be tensor_parallel \(2\)"),
        (pools(worker={"port": 1}), "write instead: worker_ports"),
        (pools(worker={"batch_token": 1}), "no such setting: batch_token; there are batch_items"),
        (pools(worker={"batch_tokens": 1}), "batch_tokens: Input should be greater than or equal to 64"),
        (pools() | {"routers": {"settings": {"lanes": 0}}}, "lanes: Input should be greater than or equal"),
        (pools() | {"routers": {"settings": {"workers": []}}}, "workers is set by the deployment itself"),
        (
            pools(env={"WORKER_BATCH_ITEMS": "2"}),
            "pools.code.env: .* write batch_items under worker of a pool",
        ),
        (pools(env={"worker_batch_items": "2"}), "write batch_items under worker of a pool"),
        (pools(env={"WORKER_PORT": "1"}), "WORKER_PORT is set .* itself; write instead: worker_ports"),
        (pools(env={"ROUTER_LANES": "2"}), "write lanes under settings of routers"),
        (
            pools() | {"routers": {"env": {"ROUTER_LANES": "2"}}},
            "routers.env: .* lanes under settings of routers",
        ),
        (
            pools() | {"routers": {"env": {"WORKER_BATCH_ITEMS": "2"}}},
            "write batch_items under worker of a pool",
        ),
        (pools() | {"routers": {"env": {"ROUTER_HOST": "a"}}}, "write instead: host"),
        (pools() | {"worker_ports": "9-8"}, "9-8 is not a range"),
        (pools() | {"name": "Two words"}, "name: "),
        ([], "Input should be"),
    ],
)
def test_errors_name_the_field(document: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(document)


def test_this_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_BATCH_TOKENS", "nonsense")
    monkeypatch.setenv("ROUTER_WORKERS", "nonsense")
    parse_config(pools(worker={"batch_items": 2}) | {"routers": {"settings": {"lanes": 2}}})


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("pools: [")
    with pytest.raises(ConfigError, match="broken"):
        read_config(broken)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_valid(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    if "applications" not in document:
        assert read_config(path).pools


def test_settings_as_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"batch_tokens": 128, "engine_args": {"seed": 1}, "dtype": "float32", "enforce_eager": True}
    for name, value in environment("WORKER_", {"model": "m", **given}).items():
        monkeypatch.setenv(name, value)
    read = WorkerSettings()  # type: ignore[call-arg]
    assert {name: getattr(read, name) for name in given} == given
    monkeypatch.setenv("ROUTER_DISCOVERY", "file")
    for name, value in environment("ROUTER_", {"media_fetch": False}).items():
        monkeypatch.setenv(name, value)
    assert RouterSettings().media_fetch is False


def test_precedence_of_the_environment() -> None:
    pool = parse_config(
        pools(gpus=0.25, revision="r", worker={"batch_tokens": 128}, env={"A": "pool"})
    ).pools["code"]
    node = {
        "WORKER_PORT": "1",
        "A": "node",
        "WORKER_BATCH_TOKENS": "1",
        "WORKER_HOST": "0.0.0.0",
        "ROUTER_PORT": "8080",
        "B": "node",
    }
    env = worker_environment(pool, "code", "10.0.0.1", 8101, "secret", node)
    assert json.loads(env["WORKER_GPU_MEMORY_UTILIZATION"]) == pytest.approx(0.225)
    assert (
        env
        | {
            "WORKER_MODEL": "m",
            "WORKER_REVISION": "r",
            "WORKER_TASK": "code",
            "WORKER_HOST": "10.0.0.1",
            "WORKER_PORT": "8101",
            "WORKER_TOKEN": "secret",
            "WORKER_BATCH_TOKENS": "128",
            "A": "pool",
            "B": "node",
        }
        == env
    )
    assert "ROUTER_PORT" not in env


def test_a_configured_memory_share_stays() -> None:
    pool = parse_config(pools(gpus=0.5, worker={"gpu_memory_utilization": 0.3})).pools["code"]
    env = worker_environment(pool, "code", "h", 1, "t", {})
    assert env["WORKER_GPU_MEMORY_UTILIZATION"] == "0.3"
