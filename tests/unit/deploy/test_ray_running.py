"""Stopping a deployment: the order, the wait, and what is left."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from triptych.deploy.ray import running
from triptych.deploy.ray.config import ClusterConfig, Pool
from triptych.loadtests.server_processes import free_port

CONFIG = ClusterConfig(pools={"code": Pool(model="/variants/code")})
ALL = ["triptych-routers", "triptych-retrieval", "triptych-code"]


class Serve:
    """A fake Ray Serve: applications, each with the seconds that it takes to stop."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.told: dict[str, float] = {}
        self.ended = False

    def status(self) -> Any:
        over = {name for name, then in self.told.items() if self.now >= then + self.seconds[name]}
        return SimpleNamespace(applications=self.seconds.keys() - over)

    def delete(self, name: str) -> None:
        self.told[name] = self.now

    def shutdown(self) -> None:
        self.ended = True


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    serve = Serve(dict.fromkeys(ALL, 5.0))

    def sleep(seconds: float) -> None:
        serve.now += seconds

    monkeypatch.setattr(running, "serve", serve)
    monkeypatch.setattr(running, "delete_application", serve.delete)
    monkeypatch.setattr(running, "find_directory", lambda _: None)
    monkeypatch.setattr(running.time, "monotonic", lambda: serve.now)
    monkeypatch.setattr(running.time, "sleep", sleep)
    return serve


@pytest.mark.parametrize("by_option", [True, False])
def test_address_where_nothing_listens_is_refused(monkeypatch: pytest.MonkeyPatch, by_option: bool) -> None:
    monkeypatch.setattr(running.ray, "init", lambda *_, **__: pytest.fail("Ray would try for ever"))
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379" if by_option else address)
    with pytest.raises(running.Failed, match=f"{address}.+--address"):
        running.connect(address if by_option else None)


def test_missing_token_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise AuthenticationError("no authentication token was found")

    monkeypatch.setattr(running.ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(running.Failed, match="no authentication token was found"):
        running.connect(None)


def test_down_waits_for_a_long_drain(serve: Serve) -> None:
    serve.seconds["triptych-retrieval"] = 90
    running.stop(CONFIG, 600)
    # The workers stop after the routers.
    assert serve.told == {"triptych-routers": 0, "triptych-retrieval": 5, "triptych-code": 5}
    assert serve.ended


def test_down_names_what_does_not_end(serve: Serve) -> None:
    serve.seconds["triptych-routers"] = float("inf")
    with pytest.raises(running.Failed, match="triptych-routers"):
        running.stop(CONFIG, 600)
    assert (set(serve.told), serve.ended) == (set(ALL), False)


def test_down_leaves_other_applications(serve: Serve) -> None:
    serve.seconds["another"] = 0
    running.stop(CONFIG, 600)
    assert (set(serve.told), serve.ended) == (set(ALL), False)


def test_up_stops_removed_pools(serve: Serve) -> None:
    serve.seconds["triptych-retrieval"] = 90
    running.stop_removed(CONFIG, 600)
    assert set(serve.told) == {"triptych-retrieval"}
