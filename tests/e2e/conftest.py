"""The demo as a newcomer starts it: `python -m deploy local`, once for all tests here."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.server_processes import Deployment
from workers.checkpoints.__main__ import main as checkpoints

POOL = "retrieval"

# A text of the full context would take a CPU minutes.
MAX_TOKENS = 2048

# Tests serve images on loopback, which is closed to clients' addresses unless opened.
SETTINGS = {"WORKER_MAX_TOKENS": str(MAX_TOKENS), "ROUTER_MEDIA_ALLOWED_NETWORKS": '["127.0.0.0/8"]'}


# Not for the session: other tests need the memory of these engines.
@pytest.fixture(scope="package")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Three pools on the demo's variants, made from nothing, behind one router."""
    folder = tmp_path_factory.mktemp("deployment")
    started = Deployment(folder / "log", folder / "state", **SETTINGS)
    try:
        yield started.wait_until_ready()
        assert started.stop() == 0, started.tail()
    finally:
        started.kill()


@pytest.fixture
def api(deployment: Deployment) -> Iterator[httpx.Client]:
    """A client of the deployment's router."""
    with httpx.Client(base_url=deployment.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="package")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano checkpoint's retrieval variant."""
    folder = tmp_path_factory.mktemp("nano")
    assert checkpoints(["tiny", "--nano", str(folder / "upstream")]) == 0
    assert checkpoints(["merge", str(folder / "upstream"), str(folder), "--task", POOL]) == 0
    return folder / POOL
