"""The configuration of the demo on Ray."""

from pathlib import Path

import pytest

from triptych.deploy.install import NoAnswer
from triptych.deploy.ray import demo
from triptych.deploy.ray.config import ConfigError


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The checkpoints of the demo exist."""
    monkeypatch.setattr(demo.machine, "usable_gpus", lambda: ())
    monkeypatch.chdir(tmp_path)
    for pool in ("retrieval", "text-matching", "code"):
        folder = tmp_path / ".triptych" / "demo" / "variants" / pool
        folder.mkdir(parents=True)
        (folder / "variant.json").touch()


@pytest.mark.parametrize("name", ["POOLS", "VARIANTS", "MODEL", "WORKER_PORT", "TYPO"])
def test_demo_ignores_deploy_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv(f"DEPLOY_{name}", "other")
    assert {name: pool.model for name, pool in demo.make().pools.items()} == {
        pool: str(tmp_path / ".triptych/demo/variants" / pool)
        for pool in ("retrieval", "text-matching", "code")
    }


def test_demo_engines_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {pool.gpus for pool in demo.make().pools.values()} == {0}
    monkeypatch.setattr(demo.machine, "usable_gpus", lambda: ("0",))
    pools = demo.make().pools.values()
    assert all(0 < pool.gpus < 1 for pool in pools)
    # The most replicas, and one more during an upgrade.
    assert sum(pool.gpus * pool.most for pool in pools) + max(pool.gpus for pool in pools) <= 1


def test_failing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NoAnswer("`nvidia-smi -L` fails: version mismatch")

    monkeypatch.setattr(demo.machine, "usable_gpus", fail)
    with pytest.raises(ConfigError, match="version mismatch"):
        demo.make()
