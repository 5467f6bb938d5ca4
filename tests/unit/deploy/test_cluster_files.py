"""The files for `ray up`, and what all files for clusters name."""

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli

from tests.unit.deploy.manifests import DOCKERFILE, PAGE, PODS, ROOT, each_cluster, ray_commands
from triptych.deploy.install import NEWEST, OLDEST
from triptych.deploy.ray.config import ClusterConfig, parse_config
from triptych.deploy.ray.ray_private import labels_match


def start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


@each_cluster
def test_ray_up_accepts_the_file(cluster: Path) -> None:
    prepared = prepare_config(copy.deepcopy(yaml.safe_load(cluster.read_text())))
    validate_config(prepared)
    head = prepared["head_node_type"]
    assert sum(kind["max_workers"] for kind in prepared["available_node_types"].values()) > 0
    assert prepared["available_node_types"][head]["resources"].get("GPU", 0) == 0


def test_configurations_in_the_guide() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    configs = [yaml.safe_load(block) for block in blocks if block.startswith("pools:")]
    assert len(configs) >= 2
    for config in configs:
        parse_config(config, "docs/CLUSTER.md")


@each_cluster
def test_nodes_require_the_token(cluster: Path) -> None:
    config = yaml.safe_load(cluster.read_text())
    commands = start_commands(config)
    assert len(commands) == 2
    for command in commands:
        export = shlex.split(command.split(";")[0])
        assert export[:2] == ["export", "RAY_AUTH_MODE=token"]
        (path,) = re.findall(r"WORKER_TOKEN=\$\(cat (\S+)\)", command)
        assert path in config["file_mounts"]
        assert "ulimit -n" in command
    # Ray's default path.
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in commands[0]
    assert not any(host in command for command in commands for host in ("0.0.0.0", "=::"))


def test_aws_routers_are_not_on_gpu_nodes() -> None:
    cluster = yaml.safe_load((ROOT / "deploy/ray/clusters/aws.yaml").read_text())
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (labels,) = (
        yaml.safe_load(block)["routers"]["labels"] for block in blocks if block.startswith("routers:")
    )
    kinds = cluster["available_node_types"]
    for kind in kinds.values():
        assert labels_match(kind.get("labels", {}), labels) == (kind["resources"]["GPU"] == 0)
    workers = kinds.keys() - {cluster["head_node_type"]}
    assert sum(kinds[name]["min_workers"] for name in workers if "labels" in kinds[name]) >= 1
    assert cluster["max_workers"] >= sum(kinds[name]["max_workers"] for name in workers)
    assert kinds["router"]["worker_setup_commands"] == cluster["setup_commands"]


@each_cluster
def test_ray_start_accepts_the_flags_and_takes_none_of_our_ports(cluster: Path) -> None:
    ours = {*ClusterConfig.model_validate({"pools": {"code": {"model": "unused"}}}).port_range, 8080}
    for command in start_commands(yaml.safe_load(cluster.read_text())):
        ((start, *flags),) = ray_commands(command)
        its = cli.commands[start].make_context(start, flags).params
        ports = {int(port) for name, port in its.items() if re.search("(?<!worker_)port$", name) and port}
        workers = {*range(its["min_worker_port"], its["max_worker_port"] + 1)}
        assert not ours & (ports | workers)
        assert not ports & workers


def test_images_are_built_here() -> None:
    parts = {pod.container["image"] for pod in PODS}
    targets = re.findall(r"^FROM .* AS (.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    for image in parts:
        (part,) = re.findall(r"registry\.example/triptych-(.*):0\.1\.0", image)
        assert part in targets
    assert len(parts) == 3
    base = r"BASE=python:(\d+)\.(\d+)-slim@sha256:[0-9a-f]{64}\n"
    ((major, minor),) = re.findall(base, DOCKERFILE.read_text())
    assert OLDEST <= (int(major), int(minor)) <= NEWEST
