"""compose.yaml is valid by the Compose specification, and fits images, settings and monitoring."""

import re
from typing import Any

import compose_spec
import pytest
import yaml

from tests.prometheus import ROOT
from tests.unit.deploy.manifests import DOCKERFILE
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings

# Compose replaces `${NAME:-default}`, and `$$` by `$`.
TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text()).replace("$$", "$")
DOCUMENT = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
WORKERS = {
    name: service for name, service in SERVICES.items() if "WORKER_TASK" in service.get("environment", {})
}


def test_compose_accepts_the_file() -> None:
    # With merge keys resolved, which this parser does not do.
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(DOCUMENT)).validate()


def test_processes_accept_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(WORKERS) == 6
    for name in ["router", *WORKERS]:
        with monkeypatch.context() as patch:
            for variable, value in SERVICES[name]["environment"].items():
                patch.setenv(variable, value)
            RouterSettings() if name == "router" else WorkerSettings()


@pytest.mark.parametrize("profile", ["demo", "gpu"])
def test_routers_reach_every_worker(profile: str) -> None:
    found = {
        (f"{alias}:8101", worker["environment"]["WORKER_TASK"])
        for worker in WORKERS.values()
        if worker["profiles"] == [profile]
        for alias in worker["networks"]["workers"]["aliases"]
    }
    groups = yaml.safe_load(SERVICES["router"]["environment"]["ROUTER_WORKERS"])
    assert found == {(group["targets"][0], group["labels"]["task"]) for group in groups}
    assert "workers" in SERVICES["router"]["networks"]


def test_workers_are_alone_with_the_routers() -> None:
    # They have no token.
    assert DOCUMENT["networks"]["workers"] == {"internal": True}
    for worker in WORKERS.values():
        assert [*worker["networks"]] == ["workers"]
        assert "ports" not in worker


def test_images_are_targets_of_the_dockerfile() -> None:
    targets = re.findall(r"^FROM .* AS (.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    built = {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    assert len(built) == 9
    for name, build in built.items():
        assert build["target"] in targets
        assert SERVICES[name]["image"] == f"triptych-{build['target']}:0.1.0"
        assert (ROOT / build["dockerfile"]).samefile(DOCKERFILE)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_services_are_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for volume in service.get("volumes", ()):
        source, _, target = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).is_file()
            assert target.endswith(":ro")


def test_weights_are_there_before_workers() -> None:
    for worker in WORKERS.values():
        [(job, wanted)] = worker["depends_on"].items()
        assert wanted == {"condition": "service_completed_successfully"}
        assert SERVICES[job]["profiles"] == worker["profiles"]
        [written] = SERVICES[job]["volumes"]
        assert worker["volumes"] == [f"{written}:ro"]
