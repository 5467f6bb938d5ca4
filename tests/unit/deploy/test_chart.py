"""The Helm chart, rendered by the real helm: valid objects for each example, and refused values."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import MONITORING, promtool
from tests.unit.deploy.manifests import (
    KUBERNETES_PAGE,
    Objects,
    Pod,
    has_known_fields,
    of_kind,
    pods_of,
    rendered,
    rendered_with,
    validate,
)
from triptych.deploy.kubernetes import generate
from triptych.deploy.kubernetes.helm import CHART, Refused, helm
from triptych.router.access.guard import OPEN_PATHS
from triptych.router.observe.gauges import make_gauges
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.targets import TargetGroup, read_document
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings

pytestmark = pytest.mark.usefixtures("needs_helm")
EXAMPLES = [CHART / "values.yaml", *sorted((CHART / "examples").glob("*.yaml"))]
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def router_of(objects: Objects) -> Pod:
    [router] = pods_of(objects, "Deployment")
    return router


def worker_groups(objects: Objects) -> tuple[TargetGroup, ...]:
    """What the routers are told of the workers."""
    data = [one["data"] for one in of_kind(objects, "ConfigMap") if "workers.json" in one["data"]]
    return read_document(data[0]["workers.json"].encode())


def test_plain_yaml_and_schema_are_generated() -> None:
    # If this fails, run `make chart`.
    assert generate.SCHEMA.read_text() == generate.schema()
    assert generate.PLAIN.read_text() == generate.plain()


def test_the_page_explains_every_value() -> None:
    page = KUBERNETES_PAGE.read_text()
    schema = json.loads(generate.SCHEMA.read_text())
    groups = schema["properties"] | {"pools": schema["definitions"]["pool"]}
    names = {name for group in groups.values() for name in group.get("properties", ())}
    assert {name for name in names if not re.search(rf"[`.]{name}\b", page)} == set()


def test_helm_accepts_the_chart() -> None:
    helm("lint", "--strict", CHART)


@each_example
def test_objects_are_valid(example: Path) -> None:
    for one in rendered("--values", example):
        validate(one)
        for trigger in one.get("spec", {}).get("triggers", ()):
            assert has_known_fields(trigger, "trigger")
            # KEDA refuses numbers here.
            assert all(isinstance(value, str) for value in trigger["metadata"].values())
        for endpoint in one.get("spec", {}).get("podMetricsEndpoints", ()):
            assert has_known_fields(endpoint, "endpoint")


@each_example
def test_containers_are_confined_and_bounded(example: Path) -> None:
    pods = pods_of(rendered("--values", example), "Deployment", "StatefulSet", "Job")
    found = [its for pod in pods for its in pod.spec.get("initContainers", []) + pod.spec["containers"]]
    assert len(found) >= 4
    for container in found:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "memory" in container["resources"]["limits"]
        assert "cpu" in container["resources"]["requests"]


@each_example
def test_processes_accept_their_settings(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod in pods_of(rendered("--values", example)):
        with monkeypatch.context() as patch:
            for name, value in pod.environment.items():
                patch.setenv(name, value)
            RouterSettings() if pod.component == "router" else WorkerSettings()


@each_example
def test_routers_find_every_group(example: Path) -> None:
    objects = rendered("--values", example)
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Service")}
    there = set()
    for workers in of_kind(objects, "StatefulSet"):
        name = workers["spec"]["serviceName"]
        # SRV records name the pods of a headless Service, ready or not, by the name of its port.
        assert services[name]["clusterIP"] == "None"
        assert services[name]["publishNotReadyAddresses"] is True
        assert services[name]["selector"].items() <= workers["spec"]["template"]["metadata"]["labels"].items()
        [port] = services[name]["ports"]
        there.add(f"_{port['name']}._tcp.{name}.triptych.svc.cluster.local")
    assert {group.labels.srv for group in worker_groups(objects)} == there


def test_alert_rules_are_those_of_prometheus() -> None:
    objects = rendered("--set", "monitoring.enabled=true,monitoring.dashboard=true")
    [rule] = of_kind(objects, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((MONITORING / "alerts.yml").read_text())
    jobs = {
        relabeling["replacement"]
        for monitor in of_kind(objects, "PodMonitor")
        for relabeling in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
        if relabeling["targetLabel"] == "job"
    }
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {job["job_name"] for job in scraped}
    [board] = [one for one in of_kind(objects, "ConfigMap") if "triptych.json" in one["data"]]
    assert board["data"]["triptych.json"] == (MONITORING / "grafana-dashboard.json").read_text()


SCALED = {"scaling": {"min": 0, "max": 4, "tokensPerSecond": 1000}}


def scaled_pool(folder: Path) -> tuple[Objects, dict[str, Any]]:
    """The objects with a pool that KEDA scales, and its ScaledObject's spec."""
    objects = rendered_with(folder, pools={"code": SCALED}, keda={"prometheus": "http://prometheus:9090"})
    [scaled] = of_kind(objects, "ScaledObject")
    return objects, scaled["spec"]


def test_a_scaled_pool_follows_its_pressure(tmp_path: Path) -> None:
    objects, scaled = scaled_pool(tmp_path)
    sets = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "StatefulSet")}
    # Otherwise every `helm upgrade` would reset it.
    assert "replicas" not in sets[scaled["scaleTargetRef"]["name"]]
    [trigger] = scaled["triggers"]
    assert trigger["metadata"]["threshold"] == "700"
    registry = Metrics().registry
    make_gauges(registry)
    known = {metric.name for metric in registry.collect()}
    for name in ("triptych_router_requested_tokens", "triptych_router_queue_tokens"):
        assert name in known
        assert name in trigger["metadata"]["query"]
    # With no worker, the routers hold what asks for the first one.
    assert {group.labels.task: group.labels.min_replicas for group in worker_groups(objects)}["code"] == "0"
    assert float(router_of(objects).environment["ROUTER_HOLD_SECONDS"]) > 0


def test_prometheus_accepts_the_query(tmp_path: Path) -> None:
    _, scaled = scaled_pool(tmp_path)
    query = scaled["triggers"][0]["metadata"]["query"]
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": [{"record": "b", "expr": query}]}]}))
    promtool("check", "rules", rules)


def test_a_second_group_of_a_pool(tmp_path: Path) -> None:
    other = {"pool": "code", "version": "2", "model": "/models/new", "gpus": 2}
    objects = rendered_with(tmp_path, pools={"code": {"version": "1"}, "v5-small.code": other})
    # Kubernetes' names cannot have dots.
    [pod] = [pod for pod in pods_of(objects) if pod.name == "triptych-v5-small-code"]
    expected = {"WORKER_TASK": "code", "WORKER_MODEL": "/models/new", "WORKER_TENSOR_PARALLEL": "2"}
    assert expected.items() <= pod.environment.items()
    assert pod.container["resources"]["limits"]["nvidia.com/gpu"] == 2
    versions = [group.labels.version for group in worker_groups(objects) if group.labels.task == "code"]
    assert sorted(version for version in versions if version) == ["1", "2"]


def test_keys_close_the_router() -> None:
    router = router_of(rendered("--set", "router.apiKeysSecret=keys"))
    folder = str(Path(router.environment["ROUTER_API_KEYS_FILE"]).parent)
    [mount] = [mount for mount in router.container["volumeMounts"] if mount["mountPath"] == folder]
    assert mount["readOnly"] is True
    assert router.container["readinessProbe"]["httpGet"]["path"] in OPEN_PATHS


def policy(objects: Objects, name: str) -> dict[str, Any]:
    [policy] = [one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == name]
    return policy["spec"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("value", "opened"),
    [
        ("router.settings.media_fetch=false", False),
        ("pools.code.model=jinaai/jina-embeddings-v4-vllm-code", True),
    ],
)
def test_egress_follows_what_is_fetched(value: str, opened: bool) -> None:
    for name in ("triptych-router", "triptych-workers"):
        assert ("ipBlock" in str(policy(rendered("--set", value), name)["egress"])) == opened


def test_clients_may_be_narrowed(tmp_path: Path) -> None:
    narrow = {"podSelector": {"matchLabels": {"app": "search"}}}
    objects = rendered_with(tmp_path, networkPolicy={"clients": [narrow]}, monitoring={"enabled": True})
    [rule] = policy(objects, "triptych-router")["ingress"]
    client, test, *scrapers = rule["from"]
    assert client == narrow
    # `helm test` runs a pod, too.
    [pod] = of_kind(objects, "Pod")
    assert test["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert scrapers


def test_secrets_are_generated_on_request() -> None:
    assert not of_kind(rendered(), "Secret")
    [secret] = of_kind(rendered("--set", "workerToken.create=true"), "Secret")
    assert len(secret["data"]["worker_token"]) >= 16


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"pools": {"code": {"replica": 2}}}, ["'/pools/code'", "'replica' not allowed"]),
        ({"pools": {"codes": {}}}, ["'/pools/codes'", "'pool'"]),
        ({"pools": {"b": {"pool": "codes"}}}, ["'/pools/b/pool'", "'text-matching'", "'v5-small.retrieval'"]),
        ({"pools": {"code": {"settings": {"dtyp": "auto"}}}}, ["'/pools/code/settings'", "'dtyp'"]),
        ({"pools": {"code": {"settings": {"port": 1}}}}, ["'/pools/code/settings'", "'port' not allowed"]),
        ({"pools": {"code": {"scaling": {"min": 1}}}}, ["'/pools/code/scaling'", "'max', 'tokensPerSecond'"]),
        ({"pools": {"code": SCALED}}, ["keda.prometheus", "http://", "pools.code.scaling"]),
        ({"pools": {"a.b": {"pool": "code"}, "a-b": {"pool": "code"}}}, ["a.b", "a-b", "rename"]),
        ({"router": {"settings": {"lane": 4}}}, ["'/router/settings'", "'lane' not allowed"]),
        ({"router": {"replicas": {"min": 9}}}, ["router.replicas", "min (9)", "max (8)"]),
        ({"weights": {"sources": {"v4": "here"}}}, ["'/weights/sources/v4'", "/models/"]),
        ({"weights": {"enabled": True, "sources": {"v4": None}}}, ["weights.sources.v4", "pools.code"]),
        ({"routers": {}}, ["'routers' not allowed"]),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, values: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        rendered_with(tmp_path, **values)
    for part in says:
        assert part in str(refused.value)
