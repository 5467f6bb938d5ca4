"""The files for clusters and the Helm chart, as the tests read them."""

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from triptych.deploy.kubernetes.helm import template

ROOT = Path(__file__).parents[3]
CLUSTERS = sorted((ROOT / "deploy/ray/clusters").glob("*.yaml"))
RAY_SERVICE = ROOT / "deploy/kubernetes/rayservice.yaml"
MANIFESTS = [ROOT / "deploy/kubernetes/plain.yaml", RAY_SERVICE]
CONFIG = ROOT / "deploy/kubernetes/rayservice.config.yaml"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
PAGE = ROOT / "docs/CLUSTER.md"
KUBERNETES_PAGE = ROOT / "docs/KUBERNETES.md"
TOKEN = "0123456789abcdef"

Objects = list[dict[str, Any]]


@cache
def documents(path: Path) -> Objects:
    return list(yaml.safe_load_all(path.read_text()))


@cache
def rendered(*arguments: str | Path) -> Objects:
    """The objects of the chart. Tests share them."""
    return [one for one in yaml.safe_load_all(template(*arguments)) if one]


def rendered_with(folder: Path, **values: Any) -> Objects:
    """The objects of the chart with other values."""
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    return rendered("--values", folder / "values.yaml")


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [one for one in objects if one["kind"] in kinds]


class Pod(NamedTuple):
    """A pod template, and the manifest that it is in."""

    name: str
    template: dict[str, Any]
    manifest: Path

    @property
    def labels(self) -> dict[str, str]:
        return self.template["metadata"]["labels"]  # type: ignore[no-any-return]

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def spec(self) -> dict[str, Any]:
        return self.template["spec"]  # type: ignore[no-any-return]

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        return container  # type: ignore[no-any-return]

    @property
    def environment(self) -> dict[str, str]:
        return {its["name"]: its.get("value", TOKEN) for its in self.container.get("env", ())}


def pods_of(objects: Objects, *kinds: str, manifest: Path = Path("chart")) -> list[Pod]:
    found = of_kind(objects, *(kinds or ("Deployment", "StatefulSet")))
    return [Pod(one["metadata"]["name"], one["spec"]["template"], manifest) for one in found]


def ray_service() -> dict[str, Any]:
    (service,) = of_kind(documents(RAY_SERVICE), "RayService")
    return service["spec"]  # type: ignore[no-any-return]


def groups() -> Objects:
    cluster = ray_service()["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def serve_config() -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(ray_service()["serveConfigV2"]))


PODS = [pod for path in MANIFESTS for pod in pods_of(documents(path), manifest=path)]
PODS += [Pod(group.get("groupName", "head"), group["template"], RAY_SERVICE) for group in groups()]
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


# Fields of KubeRay 1.7.0 (ray-operator/apis/ray/v1/{rayservice,raycluster}_types.go), KEDA 2.18
# (apis/keda/v1alpha1/scaledobject_types.go) and the Prometheus Operator 0.86
# (pkg/apis/monitoring/v1/podmonitor_types.go, prometheusrule_types.go).
FIELDS = {
    "RayService": """rayClusterDeletionDelaySeconds serveService upgradeStrategy managedBy serveConfigV2
        suspend rayClusterConfig excludeHeadPodFromServeSvc""",
    "cluster": """upgradeStrategy authOptions suspend managedBy autoscalerOptions headServiceAnnotations
        tlsOptions enableInTreeAutoscaling gcsFaultToleranceOptions historyServerOptions networkPolicy
        rayVersion headGroupSpec workerGroupSpecs""",
    "head": """template headService enableIngress ingressOptions resources labels rayStartParams
        serviceType""",
    "group": """suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds priority resources
        labels rayStartParams template scaleStrategy numOfHosts""",
    "autoscaler": """resources image imagePullPolicy securityContext idleTimeoutSeconds upscalingMode version
        env envFrom volumeMounts command args""",
    "ScaledObject": """scaleTargetRef pollingInterval initialCooldownPeriod cooldownPeriod idleReplicaCount
        minReplicaCount maxReplicaCount advanced triggers fallback""",
    "trigger": "type name useCachedMetrics metadata authenticationRef metricType",
    "PodMonitor": """jobLabel podTargetLabels podMetricsEndpoints selector namespaceSelector sampleLimit
        attachMetadata""",
    "endpoint": "port portNumber path scheme interval scrapeTimeout honorLabels authorization relabelings",
    "PrometheusRule": "groups",
}


def has_known_fields(its: dict[str, Any], of: str) -> bool:
    return set(its) <= {*FIELDS[of].split()}


def validate(one: dict[str, Any]) -> None:
    """Fail unless an object is valid; of other projects' kinds, the fields' names are checked."""
    if one["kind"] in FIELDS:
        assert has_known_fields(one["spec"], one["kind"])
    else:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
