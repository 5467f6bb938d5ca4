"""A clean environment, and fast probes."""

import os

import pytest

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
