"""The Kubernetes manifests are valid, match the configuration, and let processes end in order."""

from pathlib import Path

import pytest
import yaml
from ray.scripts.scripts import cli
from ray.serve._private.constants import REPLICA_HEALTH_CHECK_UNHEALTHY_THRESHOLD

from tests.unit.deploy.manifests import (
    CONFIG,
    MANIFESTS,
    PODS,
    RAY_SERVICE,
    Pod,
    documents,
    each_manifest,
    each_pod,
    groups,
    has_known_fields,
    pod_named,
    pods_of,
    ray_commands,
    ray_service,
    serve_config,
    validate,
)
from triptych.deploy.common.readiness import REPLY_SECONDS
from triptych.deploy.ray.config import read_config
from triptych.deploy.ray.serve_app import HEALTH_PERIOD_SECONDS, serve_document
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings

# Time beyond a process's drain time, for the end of an engine or a slow node.
MARGIN_SECONDS = 15


def test_objects_are_valid() -> None:
    for document in documents(RAY_SERVICE):
        validate(document)
    for pod in PODS:
        metadata = {"name": pod.name, **pod.template["metadata"]}
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec})


def test_kuberay_knows_every_field() -> None:
    cluster = ray_service()["rayClusterConfig"]
    assert has_known_fields(cluster, "cluster")
    assert has_known_fields(cluster["headGroupSpec"], "head")
    assert has_known_fields(cluster["autoscalerOptions"], "autoscaler")
    for group in cluster["workerGroupSpecs"]:
        assert has_known_fields(group, "group")
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups():
        # KubeRay refuses numbers here.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_manifest_matches_its_configuration() -> None:
    # If this fails, put the output of `triptych ray yaml --config CONFIG` into the manifest.
    assert yaml.safe_load(ray_service()["serveConfigV2"]) == serve_document(read_config(CONFIG))
    assert serve_config().proxy_location == "Disabled"


def test_kuberay_nodes_have_room() -> None:
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


@each_manifest
def test_selectors_match_pods(manifest: Path) -> None:
    there = [pod.labels for pod in PODS if pod.manifest == manifest]
    for document in documents(manifest):
        spec = document.get("spec", {})
        if document["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
            selector = spec.get("podSelector") or spec["selector"]
            selected = selector.get("matchLabels", selector).items()
            assert any(selected <= labels.items() for labels in there), document["metadata"]["name"]


@each_pod
def test_every_pod_has_probes(pod: Pod) -> None:
    assert "readinessProbe" in pod.container
    assert "livenessProbe" in pod.container
    if pod.component == "router":
        # On KubeRay the routers of a second cluster wait for its workers.
        path = "/ready" if pod.manifest.name == "rayservice.yaml" else "/health"
        assert pod.container["readinessProbe"]["httpGet"]["path"] == path
    if pod.component == "worker":
        # The other paths need the token, which the kubelet does not have.
        probes = [probe for name, probe in pod.container.items() if name.endswith("Probe")]
        assert [probe["httpGet"]["path"] for probe in probes] == ["/live"] * 3


def test_worker_may_start_long_but_not_hang() -> None:
    for pod in PODS:
        if pod.component == "worker":
            start, live = pod.container["startupProbe"], pod.container["livenessProbe"]
            assert start["periodSeconds"] * start["failureThreshold"] >= 1800
            period = live["periodSeconds"]
            silent = (live["failureThreshold"] - 1) * period + live["timeoutSeconds"]
            assert 15 <= silent <= period + silent + live["terminationGracePeriodSeconds"] <= 30


def test_hanging_replica_ends_in_30_s() -> None:
    failures = REPLICA_HEALTH_CHECK_UNHEALTHY_THRESHOLD
    assert failures * (HEALTH_PERIOD_SECONDS + REPLY_SECONDS) + HEALTH_PERIOD_SECONDS <= 30
    # Without it a worker first has its drain time.
    assert pod_named("head").environment["RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS"] == "1"


@pytest.mark.parametrize("pod", pods_of(documents(MANIFESTS[0])), ids=lambda pod: pod.name)
def test_pods_have_time_to_drain(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    settings = RouterSettings() if pod.component == "router" else WorkerSettings()
    drain = float(settings.drain_seconds)
    if isinstance(settings, RouterSettings):
        assert settings.worker_token
        # Load balancers notice some seconds after SIGTERM.
        assert settings.drain_notice_seconds >= 5
        drain += settings.drain_notice_seconds
    else:
        assert settings.token
    assert str(settings.host) == "0.0.0.0"
    assert settings.port in {port["containerPort"] for port in pod.container["ports"]}
    assert pod.spec["terminationGracePeriodSeconds"] >= drain + MARGIN_SECONDS


@pytest.mark.parametrize("name", ["routers", "gpu"])
def test_ray_nodes_are_drained_first(name: str) -> None:
    pod = pod_named(name)
    *_, script = pod.container["lifecycle"]["preStop"]["exec"]["command"]
    drain, sleep = script.split(";")
    context = cli.commands["drain-node"].make_context("drain-node", next(ray_commands(drain))[1:])
    deadline = context.params["deadline_remaining_seconds"]
    assert deadline == int(sleep.split()[1])
    # Until the deadline, routers stop using the replicas and these finish their requests.
    deployments = [deployment for app in serve_config().applications for deployment in app.deployments]
    assert deadline >= max(deployment.graceful_shutdown_timeout_s for deployment in deployments)
    assert pod.spec["terminationGracePeriodSeconds"] >= deadline + MARGIN_SECONDS
    # The head moves the replicas, so it ends last.
    head = pod_named("head")
    assert int(head.container["lifecycle"]["preStop"]["exec"]["command"][1]) >= deadline
    assert head.spec["terminationGracePeriodSeconds"] >= deadline + MARGIN_SECONDS
