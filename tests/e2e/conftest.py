"""The demo as a newcomer starts it: `triptych serve`, once for all tests here."""

from collections.abc import Iterator

import httpx
import pytest

from triptych.loadtests.server_processes import Deployment

# A text of the full context would take a CPU minutes.
MAX_TOKENS = 2048

# Two workers for one pool, so that one may be killed.
POOLS = {"retrieval": 2, "text-matching": 1, "code": 1}
SETTINGS = {
    "DEPLOY_POOLS": ",".join(f"{pool}={workers}" for pool, workers in POOLS.items()),
    "WORKER_MAX_TOKENS": str(MAX_TOKENS),
    "WORKER_KV_CACHE_GIB": "0.5",
    # Admission goes by the rate, which a busy machine makes low.
    "ROUTER_REQUEST_TIMEOUT_SECONDS": "600",
    # Clients of v2 and v3 find their models' names.
    "ROUTER_OLD_MODEL_NAMES": "true",
    # Tests serve images on loopback, which is closed to clients' addresses unless opened.
    "ROUTER_MEDIA_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
}


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
