"""What an operator may set, and that a wrong setting says what to do about it."""

import json
import signal
from typing import Any

import pytest

from triptych.router.serving.server import Server
from triptych.router.settings import RouterSettings
from triptych.workers.shared.strict_settings import SettingsError, read_settings

WORKERS = [{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]


@pytest.fixture(autouse=True)
def _workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_WORKERS", json.dumps(WORKERS))


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(RouterSettings)
    return str(caught.value)


def test_workers_are_enough() -> None:
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


def test_other_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_PORT", "1")
    monkeypatch.setenv("PORT", "1")
    assert read_settings(RouterSettings).port == 8080


def test_workers_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUTER_WORKERS")
    assert "ROUTER_WORKERS" in refusal()


# test_targets.py has the other rules of a document.
@pytest.mark.parametrize(
    ("workers", "field"),
    [
        ([], "ROUTER_WORKERS"),
        ([{"targets": ["127.0.0.1:1"]}], "ROUTER_WORKERS -> 0 -> labels"),
        ([{"targets": ["127.0.0.1"], "labels": {"task": "code"}}], "ROUTER_WORKERS -> 0 -> targets -> 0"),
        ([{"targets": [], "labels": {"task": "code", "srv": "_http._tcp.a.b"}}], "ROUTER_DISCOVERY"),
        ([*WORKERS, *WORKERS], "127.0.0.1:8101"),
    ],
)
def test_invalid_workers_are_refused(monkeypatch: pytest.MonkeyPatch, workers: list[Any], field: str) -> None:
    monkeypatch.setenv("ROUTER_WORKERS", json.dumps(workers))
    assert field in refusal()


def test_workers_or_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_DISCOVERY", "workers.json")
    assert "exactly one" in refusal()
    monkeypatch.delenv("ROUTER_WORKERS")
    assert read_settings(RouterSettings).discovery == "workers.json"


def test_token_for_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUTER_WORKERS")
    monkeypatch.setenv("ROUTER_DISCOVERY", "workers.json")
    monkeypatch.setenv("ROUTER_DISCOVERY_TOKEN", "a secret")
    said = refusal()
    assert "ROUTER_DISCOVERY_TOKEN" in said
    assert "a secret" not in said
    monkeypatch.setenv("ROUTER_DISCOVERY", "http://127.0.0.1:1/")
    assert "a secret" not in repr(read_settings(RouterSettings))


def test_workers_must_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_WORKERS", "127.0.0.1:8101")
    assert "workers" in refusal()
    assert "JSON" in refusal()


def test_other_labels_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    group = {"targets": ["worker-0:80"], "labels": {"task": "code", "zone": "a", "__meta_x": "y"}}
    monkeypatch.setenv("ROUTER_WORKERS", json.dumps([group]))
    assert read_settings(RouterSettings).workers[0].labels.task == "code"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROUTER_PORT", "http"),
        ("ROUTER_MAX_ITEMS", "0"),
        ("ROUTER_PROBE_SECONDS", "-1"),
        ("ROUTER_HOLD_SECONDS", "inf"),
    ],
)
def test_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert refusal().startswith(f"{name}: ")


def test_all_wrong_settings_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_PORT", "x")
    monkeypatch.setenv("ROUTER_LANES", "0")
    assert [line.partition(":")[0] for line in refusal().splitlines()] == ["ROUTER_PORT", "ROUTER_LANES"]


def test_queue_must_hold_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_MAX_ITEMS", "100")
    monkeypatch.setenv("ROUTER_QUEUE_ITEMS", "99")
    assert "ROUTER_QUEUE_ITEMS" in refusal()
    assert "ROUTER_MAX_ITEMS" in refusal()
    monkeypatch.setenv("ROUTER_QUEUE_ITEMS", "100")
    read_settings(RouterSettings)


@pytest.mark.parametrize(("given", "seconds"), [({}, 75), ({"keep_alive_seconds": 30}, 30)])
def test_keep_alive_is_the_settings(given: dict[str, Any], seconds: int) -> None:
    assert Server(RouterSettings(**given)).config.timeout_keep_alive == seconds


async def test_drain_notice_lasts_its_time() -> None:
    server = Server(RouterSettings(drain_notice_seconds=10), clock=iter((0.0, 9.9, 10.0)).__next__)
    server.handle_exit(signal.SIGTERM, None)
    assert [await server.on_tick(1) for _ in range(2)] == [False, True]


def test_own_alias_goes_before_an_old_name() -> None:
    given: dict[str, Any] = {"model_aliases": {"jina-embeddings-v3": {"dimensions": 64}}}
    assert RouterSettings(**given).aliases.keys() == {"jina-embeddings-v3"}
    both = RouterSettings(old_model_names=True, **given).aliases
    assert both["jina-embeddings-v3"].dimensions == 64
    assert both["jina-embeddings-v2-base-en"].dimensions == 768
