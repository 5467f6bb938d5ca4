"""The demo's configuration: what it is made of, whatever the environment and the machine are like."""

from pathlib import Path

import pytest

from deploy.install import NoAnswer
from deploy.ray import demo
from deploy.ray.config import ClusterConfig, ConfigError


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its checkpoints are there."""
    monkeypatch.setattr(demo.machine, "usable_gpus", lambda: ())
    monkeypatch.chdir(tmp_path)
    for pool in ("retrieval", "text-matching", "code"):
        folder = tmp_path / ".triptych" / "demo" / "variants" / pool
        folder.mkdir(parents=True)
        (folder / "variant.json").touch()


def places(config: ClusterConfig) -> dict[str, str]:
    return {name: pool.model for name, pool in config.pools.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPLOY_POOLS", "retrieval=2,code"),
        ("DEPLOY_VARIANTS", "code=/models/code"),
        ("DEPLOY_MODEL", "/models/other"),
        ("DEPLOY_WORKER_PORT", "none"),
        ("DEPLOY_TYPO", "1"),
    ],
)
def test_what_is_set_for_one_machine_is_not_the_demos(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert places(demo.make()) == {
        pool: str(tmp_path / ".triptych/demo/variants" / pool)
        for pool in ("retrieval", "text-matching", "code")
    }


def test_on_a_machine_with_a_gpu_the_engines_share_it_instead_of_finding_it_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {pool.gpus for pool in demo.make().pools.values()} == {0}
    monkeypatch.setattr(demo.machine, "usable_gpus", lambda: ("0",))
    pools = demo.make().pools.values()
    assert all(0 < pool.gpus < 1 for pool in pools)
    # All that there may be, and one more while a pool is upgraded.
    assert sum(pool.gpus * pool.most for pool in pools) + max(pool.gpus for pool in pools) <= 1


def test_a_driver_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NoAnswer("`nvidia-smi -L` fails: version mismatch")

    monkeypatch.setattr(demo.machine, "usable_gpus", fail)
    with pytest.raises(ConfigError, match="version mismatch"):
        demo.make()
