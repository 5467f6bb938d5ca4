"""The status of a deployment on Ray."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from triptych.deploy.ray.book import Member, Overview, RouterReport
from triptych.deploy.ray.config import ClusterConfig, Pool
from triptych.deploy.ray.status import SILENT, Status, read_status, render

CONFIG = ClusterConfig(pools={"code": Pool(model="/variants/code", replicas=1)})
NODES = [{"NodeID": "n1", "NodeManagerAddress": "10.0.0.1", "Alive": True}]
MEMBER = Member("w1", "code", "10.0.0.1:9001", "n1")
ROUTER = RouterReport("r1", "http://10.0.0.1:8080", serving=frozenset({MEMBER.address}))
KNOWN = Overview([MEMBER], [ROUTER], {})


def said(status: str = "RUNNING", **states: int) -> Any:
    """Serve's status of an application with one deployment."""
    deployment = SimpleNamespace(replica_states=states or {"RUNNING": 1}, message="")
    return SimpleNamespace(status=SimpleNamespace(value=status), message="", deployments={"d": deployment})


def seen(overview: Overview | None = KNOWN, pool: Any = None, routers: Any = None) -> Status:
    applications = {"triptych-code": pool or said(), "triptych-routers": routers or said()}
    return read_status(CONFIG, applications, overview, NODES)


def test_running_deployment_is_settled() -> None:
    status = seen()
    assert (status.settled, status.healthy, status.line) == (True, True, "code 1/1; routers 1")


CHANGING = {
    "a pool starts": seen(pool=said("DEPLOYING")),
    "a replica stops": seen(pool=said("RUNNING", RUNNING=1, STOPPING=1)),
    "the routers start": seen(routers=said("DEPLOYING")),
    "no router has reported": seen(Overview([MEMBER], [], {})),
    "a replica has not reported": seen(Overview([], [ROUTER], {})),
    "a router does not use a replica yet": seen(
        Overview([MEMBER], [ROUTER, replace(ROUTER, id="r2", serving=frozenset())], {})
    ),
}


@pytest.mark.parametrize("status", CHANGING.values(), ids=CHANGING)
def test_changing_deployment_is_not_settled(status: Status) -> None:
    assert not status.settled


def test_silent_directory_is_reported() -> None:
    status = seen(None)
    assert not status.settled
    assert not status.healthy
    assert status.line == f"code 0/1; routers 0; {SILENT}"
    assert SILENT in render(status)
    assert SILENT not in render(replace(status, directory=True))
