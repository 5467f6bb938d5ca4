"""Whether a deployment fits on nodes."""

from typing import Any

import pytest

from triptych.deploy.ray.config import ClusterConfig, parse_config
from triptych.deploy.ray.fit_check import Fit, check_fit, render
from triptych.deploy.ray.nodes import parse_nodes

GPU = "gpus=1,gpu_memory=80"
SOME = {"min": 1, "max": 3, "tokens_per_second": 9}


def config(routers: dict[str, Any] | None = None, /, **pools: dict[str, Any]) -> ClusterConfig:
    full = {name: {"model": "m", "surge_percent": 0, **its} for name, its in pools.items()}
    return parse_config({"pools": full, "routers": routers or {}})


def check(nodes: str, wanted: ClusterConfig | None = None, /, **pools: dict[str, Any]) -> Fit:
    weights = dict.fromkeys(("retrieval", "code"), 7.0)
    return check_fit(wanted or config(**pools), parse_nodes(nodes.split()), weights)  # type: ignore[arg-type]


def test_all_replicas_and_routers_fit() -> None:
    found = check(f"2xcpus=16,{GPU}", retrieval={"gpus": 1}, code={"gpus": 0.5, "replicas": 2})
    assert (found.fits, found.warnings, found.refusals) == (True, [], [])
    assert [its.fewest_fit for its in found.pools.values()] == [1, 2]
    assert (found.routers, found.routers_fit) == (2, 2)


@pytest.mark.parametrize(
    ("node", "needed", "lacks"),
    [
        ("cpus=2", {"cpus": 4}, "CPU"),
        ("cpus=8,memory=8", {"memory_gib": 16}, "GiB memory"),
        ("cpus=8", {"gpus": 0.1}, "GPU"),
        (f"cpus=8,{GPU}", {"tensor_parallel": 2}, "GPU"),
        ("cpus=8,resource:fast=1", {"resources": {"fast": 2}}, "fast"),
        ("cpus=8,label:zone=b", {"labels": {"zone": "a"}}, "label zone=a"),
        ("cpus=8,label:zone=b", {"labels": {"zone": "!b"}}, "label zone=!b"),
        # The closest node is named.
        (f"cpus=2,{GPU} cpus=1", {"cpus": 4, "gpus": 1}, "CPU"),
    ],
)
def test_replica_too_large_for_any_node(node: str, needed: dict[str, Any], lacks: str) -> None:
    found = check(node, retrieval=needed)
    assert not found.fits
    assert found.pools["retrieval"].fewest_fit == 0
    assert found.refusals[0].endswith(f"no node has that: node-1 lacks {lacks}")


@pytest.mark.parametrize(
    ("nodes", "pools", "fit"),
    [
        ("cpus=4", {"retrieval": {"cpus": 2}, "code": {"cpus": 1, "replicas": 3}}, [1, 2]),
        # Two parts of 0.6 need two GPUs.
        ("cpus=8,gpus=1", {"retrieval": {"gpus": 0.6, "replicas": 2}}, [1]),
        # A GPU that is shared is not a whole one.
        ("cpus=8,gpus=1", {"retrieval": {"gpus": 1}, "code": {"gpus": 0.1}}, [1, 0]),
        # An engine over two GPUs needs both on one node.
        ("2xcpus=8,gpus=3", {"retrieval": {"tensor_parallel": 2, "replicas": 3}}, [2]),
        ("2xcpus=8", {"retrieval": {"replicas": 3, "replicas_per_node": 1}}, [2]),
        ("cpus=8,gpus=1", {"retrieval": {"gpus": 0.33, "replicas": 3}}, [3]),
        # The pool with the label gets the node with the label.
        (
            "cpus=2,label:big=yes cpus=2",
            {"retrieval": {"cpus": 2}, "code": {"labels": {"big": "yes"}}},
            [1, 1],
        ),
    ],
)
def test_how_many_replicas_fit(nodes: str, pools: dict[str, Any], fit: list[int]) -> None:
    found = check(nodes, **pools)
    assert [its.fewest_fit for its in found.pools.values()] == fit
    assert found.fits == all(its.fewest == its.fewest_fit for its in found.pools.values())


def test_no_nodes() -> None:
    found = check_fit(config(retrieval={}), [], {})
    assert [line.partition(":")[0] for line in found.refusals] == ["retrieval", "routers"]


@pytest.mark.parametrize(
    ("routers", "wanted", "fit"),
    [
        ({}, 3, 3),
        ({"labels": {"edge": "yes"}}, 2, 2),
        ({"count": 1}, 1, 1),
        ({"count": 4}, 4, 3),
        ({"cpus": 3}, 3, 2),
    ],
)
def test_how_many_routers_fit(routers: dict[str, Any], wanted: int, fit: int) -> None:
    found = check("2xcpus=4,label:edge=yes cpus=2", config(routers, retrieval={}))
    assert (found.routers, found.routers_fit, found.fits) == (wanted, fit, wanted == fit)


def test_autoscaling_and_upgrades_need_not_fit() -> None:
    found = check("cpus=4", retrieval={"replicas": SOME}, code={"replicas": SOME, "surge_percent": 100})
    assert (found.fits, found.warnings) == (True, [])
    assert sum(its.most_fit for its in found.pools.values()) == 4
    assert all(its.upgrade_fits for its in found.pools.values())
    tight = check("cpus=1", code={"surge_percent": 25})
    assert (tight.fits, tight.pools["code"].upgrade_fits) == (True, False)
    assert "no room" in render(tight)


@pytest.mark.parametrize("replicas", [1, {**SOME, "min": 0}])
def test_weights_too_large_for_a_gpu_are_refused(replicas: Any) -> None:
    found = check("cpus=8,gpus=1,gpu_memory=24", retrieval={"gpus": 0.1, "replicas": replicas})
    assert ["weights 7.0" in line for line in found.refusals] == [True]


def test_every_gpu_that_ray_may_choose_is_checked() -> None:
    nodes = f"cpus=8,{GPU},label:big=yes cpus=8,gpus=1,gpu_memory=16"
    assert "16 GiB" in check(nodes, retrieval={"gpus": 0.3}).refusals[0]
    assert check(nodes, retrieval={"gpus": 0.3, "labels": {"big": "yes"}}).fits


def test_unknown_gpu_memory_is_a_warning() -> None:
    found = check("cpus=8,gpus=1", retrieval={"gpus": 0.3})
    assert found.fits
    assert ["memory is unknown" in line for line in found.warnings] == [True]
