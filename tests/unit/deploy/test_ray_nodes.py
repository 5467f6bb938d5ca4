"""Nodes as a command line, a file and a cluster tell of them."""

from pathlib import Path
from typing import Any

import pytest

from deploy.ray.nodes import Node, NodesError, nodes_of_cluster, parse_nodes


def test_words_are_kinds_of_nodes_with_a_count() -> None:
    first = "2xcpus=16,gpus=1,gpu_memory=80,memory=128,label:zone=a,label:ray.io/x=y,resource:fast=1"
    one, two, three = parse_nodes(f"{first} 1xcpus=8")
    assert one == Node("node-1", 16, 1, 80, 128, {"fast": 1.0}, {"zone": "a", "ray.io/x": "y"})
    assert (two.name, two.gpus) == ("node-2", 1)
    assert three == Node("node-3", 8)


def test_a_kind_without_a_count_is_one_node_and_may_have_a_name() -> None:
    assert [node.name for node in parse_nodes("name=head,cpus=0 2xname=gpu,cpus=4")] == [
        "head",
        "gpu-1",
        "gpu-2",
    ]


def test_a_file_says_the_same_as_words(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(
        "- {count: 2, cpus: 16, gpus: 1, gpu_memory: 80, labels: {zone: a}, resources: {fast: 1}}\n"
    )
    assert parse_nodes(str(file)) == parse_nodes(
        "2xcpus=16,gpus=1,gpu_memory=80,label:zone=a,resource:fast=1"
    )


@pytest.mark.parametrize(
    ("text", "part", "right"),
    [
        ("", "no nodes", "2xcpus=16"),
        ("2xgpus=1", "cpus is missing", "cpus=16"),
        ("cpus=many", "cpus", "valid number"),
        ("cpus=4,gpus=0.5", "gpus", "integer"),
        ("cpus=4,gpu=1", "gpu;", "gpus"),
        ("cpus=4,fast", "fast", "cpus=16"),
        ("cpus=4,", "empty part", "cpus=16"),
        ("cpus=4,cpus=5", "cpus=5", "twice"),
        ("cpus=4,label:zone=a,label:zone=b", "label:zone=b", "twice"),
        ("cpus=4,gpu_memory=80", "gpu_memory", "gpus=1"),
        ("0xcpus=4", "count", "greater than or equal to 1"),
        ("cpus=-1", "cpus", "greater than or equal to 0"),
        ("name=a,cpus=1 name=a,cpus=2", "called a", "name of its own"),
        ("absent.yaml", "absent.yaml", "No such file"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(text: str, part: str, right: str) -> None:
    with pytest.raises(NodesError) as error:
        parse_nodes(text)
    assert part in str(error.value)
    assert right in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cpus: 4", "a list of nodes"),
        ("- 4", "entry 1: 4 is no node"),
        ("- {cpus: 4}\n- {cpus: 4, cpu: 1}", "entry 2: no such part: cpu"),
        ("- {cpus: 4, labels: {zone: 1}}", "entry 1: labels: zone: "),
        ("- [", "nodes.yaml: "),
    ],
)
def test_the_entry_of_a_file_that_is_wrong_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(content)
    with pytest.raises(NodesError) as error:
        parse_nodes(str(file))
    assert said in str(error.value)


def row(**changes: Any) -> dict[str, Any]:
    """As `ray.nodes()` of ray 2.60 has them."""
    resources = {"CPU": 16.0, "GPU": 2.0, "memory": 64.0 * 2**30, "object_store_memory": 1e9}
    resources |= {"node:10.0.0.1": 1.0, "accelerator_type:H100": 1.0}
    labels = {"ray.io/node-id": "abcdefabcdef"}
    return {
        "NodeID": "abcdefabcdef",
        "Alive": True,
        "NodeManagerAddress": "10.0.0.1",
        "NodeManagerHostname": "a",
        "Resources": resources,
        "Labels": labels,
    } | changes


def test_a_node_of_a_cluster_has_what_ray_says() -> None:
    [node] = nodes_of_cluster([row()])
    assert node == Node(
        "10.0.0.1",
        16,
        2,
        None,
        64,
        {"node:10.0.0.1": 1, "accelerator_type:H100": 1},
        {"ray.io/node-id": "abcdefabcdef"},
    )


def test_dead_nodes_are_left_out() -> None:
    assert nodes_of_cluster([row(Alive=False, Resources={})]) == ()


def test_a_node_without_cores_has_none() -> None:
    [node] = nodes_of_cluster([row(Resources={"node:10.0.0.1": 1.0})])
    assert (node.cpus, node.gpus, node.memory_gib) == (0, 0, None)


def test_nodes_of_one_address_are_told_apart() -> None:
    names = [node.name for node in nodes_of_cluster([row(), row(NodeID="0123456789")])]
    assert names == ["10.0.0.1 (abcdefab)", "10.0.0.1 (01234567)"]


def test_the_memory_of_gpus_is_what_a_label_or_a_resource_says_and_else_unknown() -> None:
    by_label = row(Labels={"gpu_memory_gib": "80"})
    by_resource = row(Resources={"CPU": 1.0, "GPU": 1.0, "gpu_memory_gib": 24.0})
    odd = row(Labels={"gpu_memory_gib": "much"})
    assert [node.gpu_memory_gib for node in nodes_of_cluster([by_label, by_resource, odd])] == [80, 24, None]
