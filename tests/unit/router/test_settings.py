"""What an operator may set, and that a wrong setting says what to do about it."""

import json
import signal
from typing import Any

import pytest

from triptych.router.serving.server import Server
from triptych.router.settings import RouterSettings
from triptych.workers.shared.strict_settings import SettingsError, read_settings

WORKERS = [{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]
RECORDS = {"task": "code", "srv": "_http._tcp.a.b"}
FILE: dict[str, object] = {"ROUTER_WORKERS": None, "ROUTER_DISCOVERY": "workers.json"}


@pytest.fixture(autouse=True)
def _workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_WORKERS", json.dumps(WORKERS))


def given(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Set `settings`, of which None is absent and a list is JSON."""
    for name, value in settings.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(RouterSettings)
    return str(caught.value)


def test_workers_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, PORT="1", WORKER_PORT="1", ROUTER_MAX_ITEMS="100", ROUTER_QUEUE_ITEMS="100")
    settings = read_settings(RouterSettings)
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.workers[0].targets == ("127.0.0.1:8101",)
    assert settings.workers[0].labels.task == "retrieval"


@pytest.mark.parametrize("name", ["ROUTER_PROT", "router_prot", "ROUTER_"])
def test_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "5")
    assert name in refusal()
    assert "ROUTER_PORT" in refusal(), "it says which there are"
    assert ("ROUTER_PORT?" in refusal()) == (name.lower() == "router_prot"), "it names the nearest"


# test_targets.py has the other rules of a document.
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ROUTER_WORKERS": None}, ["ROUTER_WORKERS"]),
        ({"ROUTER_WORKERS": []}, ["ROUTER_WORKERS"]),
        ({"ROUTER_WORKERS": "127.0.0.1:8101"}, ["ROUTER_WORKERS: ", "JSON"]),
        ({"ROUTER_WORKERS": [{"targets": ["127.0.0.1:1"]}]}, ["ROUTER_WORKERS -> 0 -> labels"]),
        ({"ROUTER_WORKERS": [{"targets": [], "labels": RECORDS}]}, ["ROUTER_DISCOVERY"]),
        ({"ROUTER_WORKERS": [*WORKERS, *WORKERS]}, ["127.0.0.1:8101"]),
        ({"ROUTER_DISCOVERY": "workers.json"}, ["exactly one"]),
        ({**FILE, "ROUTER_DISCOVERY_TOKEN": "a secret"}, ["ROUTER_DISCOVERY_TOKEN"]),
        ({"ROUTER_WORKER_TOKEN": "a secret of words"}, ["ROUTER_WORKER_TOKEN"]),
        ({"ROUTER_API_KEYS": "a secret"}, ["ROUTER_API_KEYS: ", "JSON"]),
        ({"ROUTER_API_KEYS": ["a secret"]}, ["ROUTER_API_KEYS"]),
        ({"ROUTER_API_KEYS": [{"name": "a", "sha256": "0" * 64, "a secret": 1}]}, ["ROUTER_API_KEYS"]),
        ({"ROUTER_API_KEY": "a secret"}, ["ROUTER_API_KEY"]),
        ({"ROUTER_PORT": "http", "ROUTER_LANES": "0"}, ["ROUTER_PORT: ", "ROUTER_LANES: "]),
        ({"ROUTER_HOLD_SECONDS": "inf"}, ["ROUTER_HOLD_SECONDS: "]),
        (
            {"ROUTER_MAX_ITEMS": "100", "ROUTER_QUEUE_ITEMS": "99"},
            ["ROUTER_QUEUE_ITEMS", "ROUTER_MAX_ITEMS"],
        ),
    ],
)
def test_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], named: list[str]
) -> None:
    given(monkeypatch, **settings)
    said = refusal()
    assert all(name in said for name in named)
    assert "a secret" not in said


def test_discovery_replaces_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **FILE)
    assert read_settings(RouterSettings).discovery == "workers.json"
    given(monkeypatch, ROUTER_DISCOVERY="http://127.0.0.1:1/", ROUTER_DISCOVERY_TOKEN="a secret")
    assert "a secret" not in repr(read_settings(RouterSettings))


@pytest.mark.parametrize(("changes", "seconds"), [({}, 75), ({"keep_alive_seconds": 30}, 30)])
def test_keep_alive_is_the_settings(changes: dict[str, Any], seconds: int) -> None:
    assert Server(RouterSettings(**changes)).config.timeout_keep_alive == seconds


async def test_drain_notice_lasts_its_time() -> None:
    server = Server(RouterSettings(drain_notice_seconds=10), clock=iter((0.0, 9.9, 10.0)).__next__)
    server.handle_exit(signal.SIGTERM, None)
    assert [await server.on_tick(1) for _ in range(2)] == [False, True]


def test_own_alias_goes_before_an_old_name() -> None:
    own: dict[str, Any] = {"model_aliases": {"jina-embeddings-v3": {"dimensions": 64}}}
    assert RouterSettings(**own).aliases.keys() == {"jina-embeddings-v3"}
    both = RouterSettings(old_model_names=True, **own).aliases
    assert both["jina-embeddings-v3"].dimensions == 64
    assert both["jina-embeddings-v2-base-en"].dimensions == 768
