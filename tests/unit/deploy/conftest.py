"""What every deploy test has: no settings from outside, and fake children."""

import os
from pathlib import Path

import pytest

from tests.unit.deploy.fakes import Fakes


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DEPLOY_", "ROUTER_", "WORKER_")):
            monkeypatch.delenv(name)
