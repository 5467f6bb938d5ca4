"""The configuration of a deployment on Ray, and its errors."""

from pathlib import Path
from typing import Any

import pytest

from triptych.deploy.common.environments import settings_env
from triptych.deploy.ray.config import ConfigError, parse_config, read_config
from triptych.deploy.ray.pool_worker import worker_environment
from triptych.workers.settings import WorkerSettings


def pools(**its: Any) -> dict[str, Any]:
    return {"pools": {"code": {"model": "m", **its}}}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"pools": {}}, "pools: "),
        ({"pools": {"text": {"model": "m"}}}, "no pool 'text'"),
        (pools(replica=1), "pools.code.replica: "),
        (pools(replicas={"min": 3, "max": 2, "tokens_per_second": 1}), r"min \(3\) is over max \(2\)"),
        (pools(gpus=2), "pools.code.*tensor_parallel"),
        (pools(gpus=1, tensor_parallel=2), r"gpus \(1\) must be tensor_parallel \(2\)"),
        (pools(worker={"port": 1}), "port is set by the deployment itself; write worker_ports"),
        (pools(worker={"batch_tokens": 1}), "pools.code.worker: batch_tokens: "),
        (pools() | {"routers": {"settings": {"workers": []}}}, "workers is set by the deployment itself"),
        (pools(env={"worker_batch_items": "2"}), "pools.code.env: worker_batch_items is a setting"),
        (pools() | {"routers": {"env": {"ROUTER_LANES": "2"}}}, "routers.env: ROUTER_LANES is a setting"),
        (pools() | {"worker_ports": "9-8"}, "9-8 is not a range"),
        (pools() | {"name": "Two words"}, "name: "),
        (
            {"pools": {"rerank-m0": {"model": "m", "worker": {"max_tokens": 1024}}}},
            "pools.rerank-m0.worker: WORKER_MAX_TOKENS.*2048",
        ),
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
    for content in (b"pools: [", b"pools: {} # \xe9"):
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match="broken"):
            read_config(broken)


def test_settings_as_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"batch_tokens": 128, "engine_args": {"seed": 1}, "dtype": "float32", "enforce_eager": True}
    for name, value in settings_env("WORKER_", {"model": "m", **given}).items():
        monkeypatch.setenv(name, value)
    read = WorkerSettings()  # type: ignore[call-arg]
    assert {name: getattr(read, name) for name in given} == given


@pytest.mark.parametrize("share", [None, 0.3])
def test_precedence_of_the_environment(share: float | None) -> None:
    worker = {"batch_tokens": 128} | ({"gpu_memory_utilization": share} if share else {})
    config = parse_config(pools(gpus=0.25, worker=worker, env={"A": "pool"}))
    node = {"WORKER_PORT": "1", "A": "node", "WORKER_BATCH_TOKENS": "1", "ROUTER_PORT": "8080", "B": "node"}
    env = worker_environment(config.pools["code"], "code", "10.0.0.1", 8101, "secret", node)
    expected = {
        "WORKER_PORT": "8101",
        "WORKER_BATCH_TOKENS": "128",
        "WORKER_GPU_MEMORY_UTILIZATION": str(share or 0.225),
        "A": "pool",
        "B": "node",
    }
    assert expected.items() <= env.items()
    assert "ROUTER_PORT" not in env
