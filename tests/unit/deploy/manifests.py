"""The files for clusters, as the tests read them."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[3]
CLUSTERS = sorted((ROOT / "deploy/ray/clusters").glob("*.yaml"))
MANIFESTS = [ROOT / "deploy/kubernetes/plain.yaml", ROOT / "deploy/kubernetes/rayservice.yaml"]
CONFIG = ROOT / "deploy/kubernetes/rayservice.config.yaml"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
PAGE = ROOT / "docs/CLUSTER.md"
KUBERNETES_PAGE = ROOT / "docs/KUBERNETES.md"
TOKEN = "0123456789abcdef"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(path) if document["kind"] == kind]


def ray_service() -> dict[str, Any]:
    (service,) = of_kind(ROOT / "deploy/kubernetes/rayservice.yaml", "RayService")
    return service["spec"]  # type: ignore[no-any-return]


def groups() -> list[dict[str, Any]]:
    cluster = ray_service()["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def serve_config() -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(ray_service()["serveConfigV2"]))


class Pod(NamedTuple):
    """A pod template, and the manifest that it is in."""

    manifest: Path
    name: str
    template: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        return self.template["metadata"]["labels"]  # type: ignore[no-any-return]

    @property
    def spec(self) -> dict[str, Any]:
        return self.template["spec"]  # type: ignore[no-any-return]

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        return container  # type: ignore[no-any-return]


def pods() -> Iterator[Pod]:
    for manifest in MANIFESTS:
        for document in documents(manifest):
            if document["kind"] in ("Deployment", "StatefulSet"):
                yield Pod(manifest, document["metadata"]["name"], document["spec"]["template"])
            if document["kind"] == "RayService":
                for group in groups():
                    yield Pod(manifest, group.get("groupName", "head"), group["template"])


PODS = list(pods())
each_pod = pytest.mark.parametrize("pod", PODS, ids=lambda pod: f"{pod.manifest.stem}-{pod.name}")
each_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
each_cluster = pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda path: path.stem)


def ray_commands(command: str) -> Iterator[list[str]]:
    """The arguments of every call of `ray` in a shell command."""
    for part in command.split(";"):
        words = shlex.split(part)
        if words and words[0].rpartition("/")[2] == "ray":
            yield words[1:]


def pod_named(name: str) -> Pod:
    (pod,) = (pod for pod in PODS if pod.name == name)
    return pod


def environment(pod: Pod) -> dict[str, str]:
    return {variable["name"]: variable.get("value", TOKEN) for variable in pod.container.get("env", ())}
