"""The Kubernetes manifests are closed to the outside."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import ray

from tests.unit.deploy.manifests import (
    DOCKERFILE,
    PODS,
    Objects,
    Pod,
    documents,
    each_manifest,
    each_pod,
    of_kind,
    ray_service,
)


def policies_of(pod: Pod) -> Objects:
    """The network policies that select a pod."""
    specs = [policy["spec"] for policy in of_kind(documents(pod.manifest), "NetworkPolicy")]
    return [spec for spec in specs if spec["podSelector"]["matchLabels"].items() <= pod.labels.items()]


def open_ports(pod: Pod) -> set[int] | None:
    """The ports that the network policies open to all pods; None if all ports are open."""
    ports: set[int] = set()
    policies = [policy for policy in policies_of(pod) if "Ingress" in policy["policyTypes"]]
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
def test_only_the_api_is_reachable(pod: Pod) -> None:
    assert open_ports(pod) == ({8080} if pod.component == "router" else set())


@each_manifest
def test_no_service_is_public(manifest: Path) -> None:
    for service in of_kind(documents(manifest), "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    head = ray_service()["rayClusterConfig"]["headGroupSpec"]
    assert head.get("serviceType", "ClusterIP") == "ClusterIP"
    assert not head.get("enableIngress")


def test_kuberay_requires_the_token() -> None:
    cluster = ray_service()["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "triptych"}
    assert cluster["rayVersion"] == ray.__version__


@each_manifest
def test_secrets_are_references(manifest: Path) -> None:
    assert not of_kind(documents(manifest), "Secret")
    for pod in PODS:
        for variable in pod.container.get("env", ()):
            if "TOKEN" in variable["name"]:
                assert variable["valueFrom"]["secretKeyRef"] == {"name": "triptych", "key": "worker_token"}
    assert any("worker_token" in str(pod.container["env"]) for pod in PODS if pod.manifest == manifest)


@each_pod
def test_pods_are_confined(pod: Pod) -> None:
    security, own = pod.spec["securityContext"], pod.container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    writable = {
        mount["mountPath"]: volumes[mount["name"]]
        for mount in pod.container["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert "/tmp" in writable
    assert all("emptyDir" in volume for volume in writable.values())
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in DOCKERFILE.read_text()
    # Kubernetes' own variables would be read as settings.
    assert pod.spec["enableServiceLinks"] is False


PUBLIC = ["93.184.215.14", "2606:2800:21f::1"]
PRIVATE = ["10.96.0.1", "192.168.1.1", "169.254.169.254", "fd00:ec2::254"]


@each_manifest
def test_routers_reach_public_addresses_only(manifest: Path) -> None:
    [pod] = [pod for pod in PODS if pod.manifest == manifest and "router" in pod.name]
    rules = [rule for policy in policies_of(pod) for rule in policy.get("egress", ())]
    assert all("to" in rule for rule in rules)
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]

    def inside(address: str, *networks: str) -> bool:
        return any(ip_address(address) in ip_network(network) for network in networks)

    def reached(address: str) -> bool:
        allowed = [block for block in blocks if inside(address, block["cidr"])]
        return any(not inside(address, *block.get("except", ())) for block in allowed)

    assert [address for address in PUBLIC + PRIVATE if reached(address)] == PUBLIC
