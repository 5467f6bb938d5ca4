"""The demo's configuration: what it is made of, whatever the environment and the machine are like."""

from pathlib import Path

import pytest

from deploy.ray import demo
from deploy.ray.config import ClusterConfig


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its checkpoints are there."""
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
