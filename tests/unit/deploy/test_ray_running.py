"""How a running deployment is ended: everything is told to, waited for as long as it may take, and said."""

from types import SimpleNamespace
from typing import Any

import pytest

from deploy.ray import running
from deploy.ray.config import ClusterConfig, Pool

CONFIG = ClusterConfig(pools={"code": Pool(model="/variants/code")})
ALL = ["triptych-routers", "triptych-retrieval", "triptych-code"]


class Serve:
    """Takes the place of Ray Serve: applications, each with the seconds that it takes to end."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.told: dict[str, float] = {}
        self.ended = False

    def status(self) -> Any:
        over = {name for name, then in self.told.items() if self.now >= then + self.seconds[name]}
        return SimpleNamespace(applications=self.seconds.keys() - over)

    def delete(self, name: str, _blocking: bool = True) -> None:
        if _blocking and self.seconds[name] > 60:
            raise TimeoutError("Some of these applications weren't deleted after 60s")
        self.told[name] = self.now

    def shutdown(self) -> None:
        self.ended = True


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    serve = Serve(dict.fromkeys(ALL, 5.0))

    def sleep(seconds: float) -> None:
        serve.now += seconds

    monkeypatch.setattr(running, "serve", serve)
    monkeypatch.setattr(running, "_stop_seconds", lambda _: 100.0)
    monkeypatch.setattr(running, "find_directory", lambda _: None)
    monkeypatch.setattr(running.time, "monotonic", lambda: serve.now)
    monkeypatch.setattr(running.time, "sleep", sleep)
    return serve


def test_down_waits_for_a_drain_of_more_than_a_minute(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.seconds["triptych-retrieval"] = 90
    running.stop(CONFIG)
    # The routers' accepted work still has the workers.
    assert serve.told == {"triptych-routers": 0, "triptych-retrieval": 5, "triptych-code": 5}
    assert serve.ended
    assert capsys.readouterr().out.splitlines() == [
        *(f"ending {name}" for name in ALL[:2]),
        "ending triptych-code",
        "still ending: triptych-retrieval",
    ]


def test_down_ends_the_others_when_one_does_not_end_and_says_which(serve: Serve) -> None:
    serve.seconds["triptych-routers"] = float("inf")
    with pytest.raises(running.Failed, match=r"triptych-routers\. Serve goes on"):
        running.stop(CONFIG)
    assert set(serve.told) == set(ALL)
    assert not serve.ended


def test_down_leaves_what_is_not_ours(serve: Serve) -> None:
    serve.seconds["somebody-elses"] = 0
    running.stop(CONFIG)
    assert set(serve.told) == set(ALL)
    assert not serve.ended


def test_up_ends_a_pool_that_is_not_named_any_more_however_long_that_takes(serve: Serve) -> None:
    serve.seconds["triptych-retrieval"] = 90
    running.end_removed(CONFIG)
    assert set(serve.told) == {"triptych-retrieval"}


def test_the_time_to_stop_is_what_serve_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def application(**seconds: float) -> dict[str, Any]:
        return {
            "name": "an application",
            "route_prefix": None,
            "docs_path": None,
            "status": "RUNNING",
            "message": "",
            "last_deployed_time_s": 0.0,
            "deployed_app_config": None,
            "source": "imperative",
            "external_scaler_enabled": False,
            "deployments": {
                name: {
                    "name": name,
                    "status": "HEALTHY",
                    "status_trigger": "UNSPECIFIED",
                    "message": "",
                    "deployment_config": {"name": name, "graceful_shutdown_timeout_s": its},
                    "target_num_replicas": 1,
                    "required_resources": {},
                    "replicas": [],
                }
                for name, its in seconds.items()
            },
        }

    details = {
        "controller_info": {},
        "proxy_location": "Disabled",
        "proxies": {},
        "applications": {"a": application(x=65.0, y=100.0), "b": application(z=900.0)},
        "target_capacity": None,
    }
    client = SimpleNamespace(get_serve_details=lambda: details)
    monkeypatch.setattr(running, "_get_global_client", lambda: client)
    assert running._stop_seconds(["a", "gone"]) == 100
    assert running._stop_seconds(["gone"]) == 0
