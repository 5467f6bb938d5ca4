"""A clean environment, fast probes, and a discovery document."""

import os
from pathlib import Path

import pytest

from tests.fault.documents import Document
from triptych.router.pool import health


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ROUTER_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(health, "LONGEST_RETRY_SECONDS", 0.05)


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return Document(tmp_path / "workers.json")
