"""The files for clusters are valid for what reads them, closed to the outside, and let work end.

KubeRay's fields are those of its v1.7.0 (ray-operator/apis/ray/v1/{rayservice,raycluster}_types.go).
"""

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli
from ray.serve._private.constants import REPLICA_HEALTH_CHECK_UNHEALTHY_THRESHOLD
from ray.serve.schema import ServeDeploySchema

from deploy.install import NEWEST, OLDEST
from deploy.local.readiness import REPLY_SECONDS
from deploy.ray.config import ClusterConfig, Routers, parse_config, read_config
from deploy.ray.room import matches
from deploy.ray.serve_app import HEALTH_PERIOD_SECONDS, PoolArgs, RouterArgs, serve_document
from router.pool.targets import read_document
from router.settings import RouterSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
CLUSTERS = sorted((ROOT / "deploy/ray/clusters").glob("*.yaml"))
MANIFESTS = [ROOT / "deploy/kubernetes/plain.yaml", ROOT / "deploy/kubernetes/rayservice.yaml"]
CONFIG = ROOT / "deploy/kubernetes/rayservice.config.yaml"
DOCKERFILE = ROOT / "deploy/kubernetes/Dockerfile"
PAGE = ROOT / "docs/CLUSTER.md"
EVERYTHING = [*CLUSTERS, *MANIFESTS, CONFIG, DOCKERFILE, PAGE]

# From SIGTERM to the end, over what the process itself takes to drain: an engine's own end, a slow node.
MARGIN_SECONDS = 15
TOKEN = "0123456789abcdef"
KUBERAY_FIELDS = """
service: rayClusterDeletionDelaySeconds serveService upgradeStrategy managedBy serveConfigV2 suspend
service: rayClusterConfig excludeHeadPodFromServeSvc
cluster: upgradeStrategy authOptions suspend managedBy autoscalerOptions headServiceAnnotations tlsOptions
cluster: enableInTreeAutoscaling gcsFaultToleranceOptions historyServerOptions networkPolicy rayVersion
cluster: headGroupSpec workerGroupSpecs
head: template headService enableIngress ingressOptions resources labels rayStartParams serviceType
group: suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds priority resources labels
group: rayStartParams template scaleStrategy numOfHosts
autoscaler: resources image imagePullPolicy securityContext idleTimeoutSeconds upscalingMode version env
autoscaler: envFrom volumeMounts command args
"""


def kuberay_fields(of: str) -> set[str]:
    lines = (line.partition(":") for line in KUBERAY_FIELDS.splitlines())
    return {field for name, _, fields in lines if name == of for field in fields.split()}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(path) if document["kind"] == kind]


def ray_service() -> dict[str, Any]:
    (service,) = of_kind(ROOT / "deploy/kubernetes/rayservice.yaml", "RayService")
    spec: dict[str, Any] = service["spec"]
    return spec


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
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.template["spec"]
        return spec

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        one: dict[str, Any] = container
        return one


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


def start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_there_are_files_for_both_clusters_and_both_manifests() -> None:
    assert [path.stem for path in CLUSTERS] == ["aws", "onprem"]
    assert [path.stem for path in MANIFESTS] == ["plain", "rayservice"]
    assert len(PODS) == 7


@each_cluster
def test_ray_up_takes_the_cluster_file(cluster: Path) -> None:
    prepared = prepare_config(copy.deepcopy(yaml.safe_load(cluster.read_text())))
    validate_config(prepared)
    head = prepared["head_node_type"]
    assert sum(kind["max_workers"] for kind in prepared["available_node_types"].values()) > 0
    assert prepared["available_node_types"][head]["resources"].get("GPU", 0) == 0


@each_cluster
def test_ray_knows_every_flag_of_the_start_commands(cluster: Path) -> None:
    for command in start_commands(yaml.safe_load(cluster.read_text())):
        (start,) = ray_commands(command)
        assert start[0] == "start"
        cli.commands["start"].make_context("start", start[1:])


@each_manifest
def test_every_core_object_is_valid_in_the_newest_kubernetes_known(manifest: Path) -> None:
    version = kubernetes_validate.latest_version()
    for document in documents(manifest):
        if not document["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(document, version, strict=True)


@each_pod
def test_every_pod_template_is_a_valid_pod(pod: Pod) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, **pod.template["metadata"]},
        "spec": pod.spec,
    }
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_ray_service_has_only_fields_that_kuberay_has() -> None:
    spec = ray_service()
    cluster = spec["rayClusterConfig"]
    assert set(spec) <= kuberay_fields("service")
    assert set(cluster) <= kuberay_fields("cluster")
    assert set(cluster["headGroupSpec"]) <= kuberay_fields("head")
    assert set(cluster["autoscalerOptions"]) <= kuberay_fields("autoscaler")
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= kuberay_fields("group")
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups():
        # Go refuses a number here.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_ray_serve_takes_the_applications_and_the_builders_their_arguments() -> None:
    schema = serve_config()
    assert schema.proxy_location == "Disabled"
    *pools, routers = schema.applications
    assert all(application.route_prefix is None for application in schema.applications)
    for application in pools:
        assert application.import_path == "deploy.ray.serve_app:pool"
        pool_args = PoolArgs.model_validate(application.args)
        assert pool_args.pool in parse_config(pool_args.config).pools
    assert routers.import_path == "deploy.ray.serve_app:routers"
    args = RouterArgs.model_validate(routers.args)
    assert Routers.model_validate(args.routers) == read_config(CONFIG).routers


def test_the_ray_service_deploys_what_its_configuration_says() -> None:
    # When this fails, put what `python -m deploy ray yaml --config CONFIG` prints into the manifest.
    assert yaml.safe_load(ray_service()["serveConfigV2"]) == serve_document(read_config(CONFIG))


def test_every_configuration_in_the_guide_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    configs = [yaml.safe_load(block) for block in blocks if block.startswith("pools:")]
    assert len(configs) >= 2
    for config in configs:
        parse_config(config, "docs/CLUSTER.md")


def test_the_ray_service_has_room_for_every_pool_and_router_that_its_configuration_allows() -> None:
    config = read_config(CONFIG)
    head, routers, gpu = groups()
    assert head["rayStartParams"]["num-cpus"] == "0"
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert sum(p.gpus_each * p.most for p in config.pools.values()) <= (
        int(limits["nvidia.com/gpu"]) * gpu["maxReplicas"]
    )
    assert sum(p.cpus for p in config.pools.values()) <= int(limits["cpu"])
    assert config.routers.count == routers["minReplicas"]
    assert config.routers.labels.items() <= routers["labels"].items()
    for pool in config.pools.values():
        assert any(pool.model.startswith(m["mountPath"]) for m in pod_named("gpu").container["volumeMounts"])


def pod_named(name: str) -> Pod:
    (pod,) = (pod for pod in PODS if pod.name == name)
    return pod


def test_the_routers_are_told_the_name_of_every_worker_there_is() -> None:
    plain = ROOT / "deploy/kubernetes/plain.yaml"
    (config_map,) = of_kind(plain, "ConfigMap")
    services = {service["metadata"]["name"]: service["spec"] for service in of_kind(plain, "Service")}
    told = {
        (target, group.labels.task)
        for group in read_document(config_map["data"]["workers.json"].encode())
        for target in group.targets
    }
    there = set()
    for workers in of_kind(plain, "StatefulSet"):
        name, spec = workers["metadata"]["name"], workers["spec"]
        service = services[spec["serviceName"]]
        assert service["clusterIP"] == "None"
        assert service["selector"] == spec["template"]["metadata"]["labels"]
        (container,) = spec["template"]["spec"]["containers"]
        port = container["ports"][0]["containerPort"]
        task = next(variable["value"] for variable in container["env"] if variable["name"] == "WORKER_TASK")
        there |= {(f"{name}-{i}.{spec['serviceName']}:{port}", task) for i in range(spec["replicas"])}
    assert told == there


def test_an_upgrade_leaves_every_pool_a_worker_and_the_routers_as_many_as_there_were() -> None:
    plain = ROOT / "deploy/kubernetes/plain.yaml"
    assert all(workers["spec"]["replicas"] >= 2 for workers in of_kind(plain, "StatefulSet"))
    (routers,) = of_kind(plain, "Deployment")
    assert routers["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (scaler,) = of_kind(plain, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == routers["metadata"]["name"]
    assert scaler["spec"]["minReplicas"] >= 2
    # Else every `kubectl apply` would put it back.
    assert "replicas" not in routers["spec"]


@each_manifest
def test_what_selects_pods_selects_some(manifest: Path) -> None:
    there = [pod.labels for pod in PODS if pod.manifest == manifest]
    for document in documents(manifest):
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            selector = spec["selector"]
        elif document["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = spec.get("podSelector", spec.get("selector"))["matchLabels"]
        else:
            continue
        assert any(selector.items() <= labels.items() for labels in there), document["metadata"]["name"]


@each_manifest
def test_a_node_can_be_drained_of_routers_and_workers(manifest: Path) -> None:
    budgets = of_kind(manifest, "PodDisruptionBudget")
    assert budgets
    for budget in budgets:
        spec = budget["spec"]
        if manifest.stem == "rayservice":
            # No scale subresource: only an integer minAvailable can be reckoned with.
            (group,) = (
                group
                for group in groups()
                if spec["selector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
            )
            assert 0 < spec["minAvailable"] < group["minReplicas"]
            assert "maxUnavailable" not in spec
        else:
            assert spec["maxUnavailable"] == 1


@each_pod
def test_every_pod_is_probed(pod: Pod) -> None:
    assert "readinessProbe" in pod.container
    assert "livenessProbe" in pod.container
    if pod.labels["app.kubernetes.io/component"] == "router":
        assert pod.container["readinessProbe"]["httpGet"]["path"] == "/ready"
    if pod.labels["app.kubernetes.io/component"] == "worker":
        # The other paths need the token, which the kubelet has not.
        probes = [probe for name, probe in pod.container.items() if name.endswith("Probe")]
        assert [probe["httpGet"]["path"] for probe in probes] == ["/live"] * 3


def test_a_hanging_worker_is_killed_within_half_a_minute_and_a_slow_answer_is_forgiven() -> None:
    for pod in PODS:
        if pod.labels["app.kubernetes.io/component"] == "worker":
            probe = pod.container["livenessProbe"]
            period, last = probe["periodSeconds"], probe["timeoutSeconds"]
            silent = (probe["failureThreshold"] - 1) * period + last
            assert 15 <= silent <= period + silent + probe["terminationGracePeriodSeconds"] <= 30


def test_a_hanging_worker_on_ray_is_replaced_within_half_a_minute() -> None:
    failures = REPLICA_HEALTH_CHECK_UNHEALTHY_THRESHOLD
    assert failures * (HEALTH_PERIOD_SECONDS + REPLY_SECONDS) + HEALTH_PERIOD_SECONDS <= 30
    (head,) = (pod for pod in PODS if pod.labels["app.kubernetes.io/component"] == "head")
    # Without it the worker has its time to drain first.
    assert environment(head)["RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS"] == "1"


def test_a_worker_may_take_half_an_hour_to_start() -> None:
    for pod in PODS:
        if pod.labels["app.kubernetes.io/component"] == "worker":
            probe = pod.container["startupProbe"]
            assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800


def environment(pod: Pod) -> dict[str, str]:
    return {variable["name"]: variable.get("value", TOKEN) for variable in pod.container.get("env", ())}


def settings_of(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> RouterSettings | WorkerSettings:
    for name, value in environment(pod).items():
        monkeypatch.setenv(name, value)
    return RouterSettings() if pod.container["command"] == ["python", "-m", "router"] else WorkerSettings()


PLAIN_PODS = [pod for pod in PODS if pod.manifest.stem == "plain"]


@pytest.mark.parametrize("pod", PLAIN_PODS, ids=lambda pod: pod.name)
def test_a_process_starts_with_its_environment_and_has_time_to_drain(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(pod, monkeypatch)
    drain = float(settings.drain_seconds)
    if isinstance(settings, RouterSettings):
        assert settings.worker_token
        # Endpoints are taken out of load balancers some seconds after SIGTERM.
        assert settings.drain_notice_seconds >= 5
        drain += settings.drain_notice_seconds
    else:
        assert settings.token
    assert str(settings.host) == "0.0.0.0"
    assert settings.port in {port["containerPort"] for port in pod.container["ports"]}
    assert pod.spec["terminationGracePeriodSeconds"] >= drain + MARGIN_SECONDS


@pytest.mark.parametrize("name", ["routers", "gpu"])
def test_ray_nodes_are_drained_before_they_are_stopped(name: str) -> None:
    pod = pod_named(name)
    *_, script = pod.container["lifecycle"]["preStop"]["exec"]["command"]
    drain, sleep = script.split(";")
    context = cli.commands["drain-node"].make_context("drain-node", next(ray_commands(drain))[1:])
    deadline = context.params["deadline_remaining_seconds"]
    assert deadline == int(sleep.split()[1])
    # Serve asks a replica to end so long before the deadline: the routers forget it, it finishes what it has.
    deployments = [deployment for app in serve_config().applications for deployment in app.deployments]
    assert deadline >= max(deployment.graceful_shutdown_timeout_s for deployment in deployments)
    assert pod.spec["terminationGracePeriodSeconds"] >= deadline + MARGIN_SECONDS
    # The head moves the replicas, so it goes last.
    head = pod_named("head")
    assert int(head.container["lifecycle"]["preStop"]["exec"]["command"][1]) >= deadline
    assert head.spec["terminationGracePeriodSeconds"] >= deadline + MARGIN_SECONDS


def open_ports(pod: Pod) -> set[int] | None:
    """The ports that pods of anybody reach by the network policies; None: all."""
    ports: set[int] = set()
    policies = [
        policy["spec"]
        for policy in of_kind(pod.manifest, "NetworkPolicy")
        if policy["spec"]["podSelector"]["matchLabels"].items() <= pod.labels.items()
        and "Ingress" in policy["spec"]["policyTypes"]
    ]
    if not policies:
        return None
    for rule in (rule for policy in policies for rule in policy.get("ingress", ())):
        if all(peer.get("podSelector", {}).get("matchLabels") for peer in rule.get("from", ({},))):
            continue
        if "ports" not in rule:
            return None
        ports |= {port["port"] for port in rule["ports"]}
    return ports


@each_pod
def test_only_the_api_can_be_reached_from_outside(pod: Pod) -> None:
    router = pod.labels["app.kubernetes.io/component"] == "router"
    assert open_ports(pod) == ({8080} if router else set())


@each_manifest
def test_no_service_leads_into_the_cluster_from_outside(manifest: Path) -> None:
    for service in of_kind(manifest, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    head = ray_service()["rayClusterConfig"]["headGroupSpec"]
    assert head.get("serviceType", "ClusterIP") == "ClusterIP"
    assert not head.get("enableIngress")


def test_only_the_operator_reaches_the_dashboard() -> None:
    policies = of_kind(ROOT / "deploy/kubernetes/rayservice.yaml", "NetworkPolicy")
    (operator,) = (policy for policy in policies if policy["metadata"]["name"] == "triptych-operator")
    (rule,) = operator["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert rule["ports"] == [{"port": 8265}]


@each_cluster
def test_every_node_of_a_cluster_asks_for_the_token_and_hides_the_dashboard(cluster: Path) -> None:
    config = yaml.safe_load(cluster.read_text())
    commands = start_commands(config)
    assert len(commands) == 2
    for command in commands:
        export = shlex.split(command.split(";")[0])
        assert export[:2] == ["export", "RAY_AUTH_MODE=token"]
        (path,) = re.findall(r"WORKER_TOKEN=\$\(cat (\S+)\)", command)
        assert path in config["file_mounts"]
        assert "ulimit -n" in command
    # Where Ray looks for it when nothing else is said.
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in commands[0]
    assert not any(host in command for command in commands for host in ("0.0.0.0", "=::"))


def test_the_machines_on_aws_are_in_a_security_group_of_our_own() -> None:
    config = yaml.safe_load((ROOT / "deploy/ray/clusters/aws.yaml").read_text())
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"]
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_routers_on_aws_keep_no_gpu_node_busy_and_outlive_the_head() -> None:
    cluster = yaml.safe_load((ROOT / "deploy/ray/clusters/aws.yaml").read_text())
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (labels,) = (
        yaml.safe_load(block)["routers"]["labels"] for block in blocks if block.startswith("routers:")
    )
    kinds = cluster["available_node_types"]
    for kind in kinds.values():
        assert matches(kind.get("labels", {}), labels) == (kind["resources"]["GPU"] == 0)
    workers = kinds.keys() - {cluster["head_node_type"]}
    assert sum(kinds[name]["min_workers"] for name in workers if "labels" in kinds[name]) >= 1
    assert cluster["max_workers"] >= sum(kinds[name]["max_workers"] for name in workers)
    assert kinds["router"]["worker_setup_commands"] == cluster["setup_commands"]


def test_kuberay_turns_the_token_on() -> None:
    cluster = ray_service()["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "triptych"}
    assert cluster["rayVersion"] == ray.__version__


@each_manifest
def test_secrets_are_only_referred_to(manifest: Path) -> None:
    assert not of_kind(manifest, "Secret")
    for pod in PODS:
        for variable in pod.container.get("env", ()):
            if "TOKEN" in variable["name"]:
                assert variable["valueFrom"]["secretKeyRef"] == {"name": "triptych", "key": "worker_token"}
    assert any("worker_token" in str(pod.container["env"]) for pod in PODS if pod.manifest == manifest)


@each_pod
def test_nothing_runs_as_root(pod: Pod) -> None:
    security, own = pod.spec["securityContext"], pod.container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in DOCKERFILE.read_text()


@each_pod
def test_variables_that_kubernetes_makes_up_are_no_settings(pod: Pod) -> None:
    assert pod.spec["enableServiceLinks"] is False


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: path.name)
def test_every_setting_that_a_file_names_is_one(path: Path) -> None:
    fields = {"ROUTER": RouterSettings.model_fields, "WORKER": WorkerSettings.model_fields}
    for prefix, name in re.findall(r"\b(ROUTER|WORKER)_([A-Z_]*[A-Z])\b", path.read_text()):
        assert name.lower() in fields[prefix], f"{prefix}_{name}"


@each_cluster
def test_no_port_of_ray_is_one_of_ours(cluster: Path) -> None:
    for command in start_commands(yaml.safe_load(cluster.read_text())):
        flags = dict(re.findall(r"(--[\w-]+)=(\S+)", command))
        ports = {int(value) for flag, value in flags.items() if flag.endswith("-port") or flag == "--port"}
        low, high = flags.get("--min-worker-port", "10002"), flags.get("--max-worker-port", "19999")
        ours = {*ClusterConfig.model_validate({"pools": {"code": {"model": "unused"}}}).port_range, 8080}
        assert len(ports) >= 2 or "--address" in flags
        assert not ports & ours
        assert not set(range(int(low), int(high) + 1)) & (ours | ports - {int(low), int(high)})


def test_ray_does_not_take_the_routers_port_for_its_metrics() -> None:
    for group in groups():
        # KubeRay says 8080 where nothing is said.
        port = group["rayStartParams"]["metrics-export-port"]
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "metrics", "containerPort": int(port)} in container["ports"]
        assert port != "8080"


def test_the_head_names_the_ports_without_which_kuberay_makes_no_service() -> None:
    names = {port["name"] for port in pod_named("head").container["ports"]}
    assert names >= {"gcs-server", "dashboard", "serve"}


def test_every_container_runs_the_one_image() -> None:
    (name,) = {pod.container["image"] for pod in PODS}
    assert f"-t {name} " in DOCKERFILE.read_text()
    assert not name.endswith(":latest")
    versions = re.findall(r"FROM python:(\d+)\.(\d+)-slim", DOCKERFILE.read_text())
    assert len(set(versions)) == 1
    assert all(OLDEST <= (int(major), int(minor)) <= NEWEST for major, minor in versions)


@pytest.mark.parametrize("path", [*CLUSTERS, DOCKERFILE], ids=lambda path: path.name)
def test_every_extra_that_is_installed_exists(path: Path) -> None:
    (named,) = re.findall(r"--editable '\.\[([\w,]+)\]'", path.read_text())
    assert named.split(",") == ["gpu", "ray"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(named.split(",")) <= set(extras)
