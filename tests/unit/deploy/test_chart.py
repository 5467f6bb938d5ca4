"""The Helm chart, rendered by the real helm: valid objects for each example, and refused values."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.prometheus import MONITORING, tool
from tests.unit.deploy.charts import containers, of_kind, rendered, with_values
from tests.unit.deploy.manifests import KUBERNETES_PAGE
from triptych.deploy.kubernetes import generate
from triptych.deploy.kubernetes.helm import CHART, Refused, helm, template
from triptych.router.access.guard import OPEN_PATHS
from triptych.router.observe.gauges import make_gauges
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.targets import read_document
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings

pytestmark = pytest.mark.usefixtures("needs_helm")
EXAMPLES = [CHART / "values.yaml", *sorted((CHART / "examples").glob("*.yaml"))]
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)

# Fields of KEDA 2.18 (apis/keda/v1alpha1/scaledobject_types.go) and of the Prometheus Operator 0.86
# (pkg/apis/monitoring/v1/podmonitor_types.go, prometheusrule_types.go).
FIELDS = {
    "ScaledObject": """scaleTargetRef pollingInterval initialCooldownPeriod cooldownPeriod idleReplicaCount
        minReplicaCount maxReplicaCount advanced triggers fallback""",
    "trigger": "type name useCachedMetrics metadata authenticationRef metricType",
    "PodMonitor": """jobLabel podTargetLabels podMetricsEndpoints selector namespaceSelector sampleLimit
        attachMetadata""",
    "endpoint": "port portNumber path scheme interval scrapeTimeout honorLabels authorization relabelings",
    "PrometheusRule": "groups",
}
CUSTOM = ("ScaledObject", "PodMonitor", "PrometheusRule")


def fields(of: str) -> set[str]:
    return {*FIELDS[of].split()}


def test_plain_yaml_and_schema_are_generated() -> None:
    # If this fails, run `make chart`.
    assert generate.SCHEMA.read_text() == generate.schema()
    assert generate.PLAIN.read_text() == generate.plain()


def test_the_page_explains_every_value() -> None:
    page = KUBERNETES_PAGE.read_text()
    schema = json.loads(generate.SCHEMA.read_text())
    groups = {
        name: one.get("properties", {}) for name, one in schema["properties"].items() if name != "pools"
    }
    groups["pool"] = schema["definitions"]["pool"]["properties"]
    missing = [
        f"{group}.{name}"
        for group, names in groups.items()
        for name in names
        if not re.search(rf"[`.]{name}\b", page)
    ]
    assert not missing


def test_helm_accepts_the_chart() -> None:
    helm("lint", "--strict", CHART)


@each_example
def test_objects_are_valid(example: Path) -> None:
    version = kubernetes_validate.latest_version()
    for document in rendered("--values", example):
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)
            continue
        assert set(document["spec"]) <= fields(document["kind"])
        for trigger in document["spec"].get("triggers", ()):
            assert set(trigger) <= fields("trigger")
            # KEDA refuses numbers here.
            assert all(isinstance(value, str) for value in trigger["metadata"].values())
        for endpoint in document["spec"].get("podMetricsEndpoints", ()):
            assert set(endpoint) <= fields("endpoint")


@each_example
def test_containers_are_confined_and_bounded(example: Path) -> None:
    found = containers(rendered("--values", example))
    assert len(found) >= 4
    for container in found:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "memory" in container["resources"]["limits"]
        assert "cpu" in container["resources"]["requests"]


@each_example
def test_processes_accept_their_settings(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered("--values", example)
    for one in of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet"):
        [container] = one["spec"]["template"]["spec"]["containers"]
        with monkeypatch.context() as patch:
            for variable in container["env"]:
                patch.setenv(variable["name"], variable.get("value", "0123456789abcdef"))
            RouterSettings() if one["kind"] == "Deployment" else WorkerSettings()


@each_example
def test_routers_find_every_group(example: Path) -> None:
    objects = rendered("--values", example)
    [config_map] = [one for one in of_kind(objects, "ConfigMap") if "workers.json" in one["data"]]
    told = {group.labels.srv for group in read_document(config_map["data"]["workers.json"].encode())}
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Service")}
    there = set()
    for workers in of_kind(objects, "StatefulSet"):
        service = services[workers["spec"]["serviceName"]]
        # SRV records name the pods of a headless Service, ready or not, by the name of its port.
        assert service["clusterIP"] == "None"
        assert service["publishNotReadyAddresses"] is True
        labels = workers["spec"]["template"]["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
        [port] = service["ports"]
        there.add(f"_{port['name']}._tcp.{workers['spec']['serviceName']}.triptych.svc.cluster.local")
    assert told == there


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
KEDA = {"prometheus": "http://prometheus:9090"}


def test_a_scaled_pool_follows_its_pressure(tmp_path: Path) -> None:
    values = {"pools": {"code": SCALED}, "keda": KEDA}
    objects = rendered(*with_values(tmp_path / "values.yaml", values))
    [scaled] = of_kind(objects, "ScaledObject")
    sets = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "StatefulSet")}
    # Otherwise every `helm upgrade` would reset it.
    assert "replicas" not in sets[scaled["spec"]["scaleTargetRef"]["name"]]
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == "700"
    registry = Metrics().registry
    make_gauges(registry)
    known = {metric.name for metric in registry.collect()}
    for name in ("triptych_router_requested_tokens", "triptych_router_queue_tokens"):
        assert name in known
        assert name in trigger["metadata"]["query"]
    # With no worker, the routers hold what asks for the first one.
    [config_map] = of_kind(objects, "ConfigMap")
    groups = read_document(config_map["data"]["workers.json"].encode())
    assert {group.labels.task: group.labels.min_replicas for group in groups}["code"] == "0"
    [router] = of_kind(objects, "Deployment")
    env = {
        one["name"]: one.get("value") for one in router["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert float(env["ROUTER_HOLD_SECONDS"]) > 0


def test_prometheus_accepts_the_query(tmp_path: Path) -> None:
    objects = rendered(*with_values(tmp_path / "values.yaml", {"pools": {"code": SCALED}, "keda": KEDA}))
    [scaled] = of_kind(objects, "ScaledObject")
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": [{"record": "b", "expr": query}]}]}))
    done = subprocess.run([tool("promtool"), "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_second_group_of_a_pool(tmp_path: Path) -> None:
    pools = {
        "code": {"version": "1"},
        "v5-small.code": {"pool": "code", "version": "2", "model": "/models/new", "gpus": 2},
    }
    objects = rendered(*with_values(tmp_path / "values.yaml", {"pools": pools}))
    workers = {one["metadata"]["name"]: one for one in of_kind(objects, "StatefulSet")}
    # Kubernetes' names cannot have dots.
    spec = workers["triptych-v5-small-code"]["spec"]["template"]["spec"]
    [container] = spec["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert env["WORKER_TASK"] == "code"
    assert env["WORKER_MODEL"] == "/models/new"
    assert env["WORKER_TENSOR_PARALLEL"] == "2"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    [config_map] = of_kind(objects, "ConfigMap")
    groups = read_document(config_map["data"]["workers.json"].encode())
    versions = [group.labels.version for group in groups if group.labels.task == "code"]
    assert sorted(version for version in versions if version) == ["1", "2"]


def test_keys_close_the_router() -> None:
    objects = rendered("--set", "router.apiKeysSecret=keys")
    [router] = of_kind(objects, "Deployment")
    [container] = router["spec"]["template"]["spec"]["containers"]
    [path] = [one["value"] for one in container["env"] if one["name"] == "ROUTER_API_KEYS_FILE"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == str(Path(path).parent)]
    assert mount["readOnly"] is True
    assert container["readinessProbe"]["httpGet"]["path"] in OPEN_PATHS


def egress(objects: list[dict[str, Any]], name: str) -> str:
    [policy] = [one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == name]
    return json.dumps(policy["spec"]["egress"])


def test_egress_follows_what_is_fetched() -> None:
    closed = rendered("--set", "router.settings.media_fetch=false")
    assert "ipBlock" not in egress(closed, "triptych-router")
    assert "ipBlock" not in egress(closed, "triptych-workers")
    fetching = rendered("--set", "pools.code.model=jinaai/jina-embeddings-v4-vllm-code")
    assert "ipBlock" in egress(fetching, "triptych-router")
    assert "ipBlock" in egress(fetching, "triptych-workers")


def test_clients_may_be_narrowed(tmp_path: Path) -> None:
    clients = [{"podSelector": {"matchLabels": {"app": "search"}}}]
    values = {"networkPolicy": {"clients": clients}, "monitoring": {"enabled": True}}
    objects = [
        one
        for one in yaml.safe_load_all(
            helm("template", "triptych", CHART, *with_values(tmp_path / "v", values))
        )
        if one
    ]
    [policy] = [
        one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == "triptych-router"
    ]
    [rule] = policy["spec"]["ingress"]
    client, test, *scrapers = rule["from"]
    assert client == clients[0]
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
        template(*with_values(tmp_path / "values.yaml", values))
    for part in says:
        assert part in str(refused.value)
