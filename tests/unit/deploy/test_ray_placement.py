"""Placing a deployment on nodes: by Ray's rules, with the reason where it cannot be."""

import json
from typing import Any

import pytest

from deploy.ray.config import ClusterConfig, parse_config
from deploy.ray.nodes import parse_nodes
from deploy.ray.placement import plan
from deploy.ray.plan import Plan, as_dict, render
from workers.shared.contract import PoolName

WEIGHTS: dict[PoolName, float | None] = {"retrieval": 7.0, "text-matching": 7.0, "code": 7.0}
NO_PACKING = "RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY"


def config(routers: dict[str, Any] | None = None, /, **pools: dict[str, Any]) -> ClusterConfig:
    full = {name.replace("_", "-"): {"model": "m", "surge_percent": 0, **its} for name, its in pools.items()}
    return parse_config({"pools": full, "routers": routers or {}})


def placed(nodes: str, *, pack: bool = False, **pools: dict[str, Any]) -> Plan:
    return plan(config(**pools), parse_nodes(nodes), WEIGHTS, pack=pack)


def where(its: Plan) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(placed.pool, placed.node, placed.gpus) for placed in its.placed]


GPU = "gpus=1,gpu_memory=80"


def test_replicas_go_round_the_nodes_pool_after_pool() -> None:
    its = placed(f"3xcpus=8,{GPU}", retrieval={"gpus": 0.5, "replicas": 2}, code={"gpus": 0.5, "replicas": 2})
    assert where(its) == [
        ("retrieval", "node-1", (0,)),
        ("code", "node-1", (0,)),
        ("retrieval", "node-2", (0,)),
        ("code", "node-3", (0,)),
    ]
    assert its.fits


def test_packed_the_largest_go_first_and_the_fullest_node_is_filled() -> None:
    its = placed(
        f"2xcpus=8,{GPU}", pack=True, retrieval={"gpus": 0.4}, code={"gpus": 0.6}, text_matching={"gpus": 0.5}
    )
    assert where(its) == [
        ("code", "node-1", (0,)),
        ("retrieval", "node-1", (0,)),
        ("text-matching", "node-2", (0,)),
    ]


def test_packed_of_unused_nodes_the_smallest_is_taken() -> None:
    its = placed("cpus=8,memory=8 cpus=4,memory=9 cpus=4,memory=8", pack=True, retrieval={"cpus": 2})
    assert [node for _, node, _ in where(its)] == ["node-3"]


def test_packed_a_node_in_use_comes_before_a_smaller_unused_one() -> None:
    its = placed(
        "cpus=8,gpus=2,gpu_memory=80,label:big=yes cpus=4,gpus=1,gpu_memory=80",
        pack=True,
        retrieval={"gpus": 1, "labels": {"big": "yes"}},
        code={"gpus": 0.5},
    )
    assert [node for _, node, _ in where(its)] == ["node-1", "node-1"]


def test_a_part_of_a_gpu_comes_from_the_fullest_and_never_from_two() -> None:
    its = placed("cpus=8,gpus=2,gpu_memory=80", retrieval={"gpus": 0.6, "replicas": 2}, code={"gpus": 0.4})
    assert where(its) == [
        ("retrieval", "node-1", (0,)),
        ("retrieval", "node-1", (1,)),
        ("code", "node-1", (0,)),
    ]
    third = placed("cpus=8,gpus=2,gpu_memory=80", retrieval={"gpus": 0.6, "replicas": 3})
    assert third.refusals == (
        "retrieval: 1 of 3 has no place; each needs 1 CPU, 0.6 of a GPU; the best node, node-1, has at most "
        "0.4 of a GPU free",
    )


def test_tensor_parallel_takes_whole_gpus_of_one_node() -> None:
    its = placed("2xcpus=8,gpus=3,gpu_memory=80", retrieval={"tensor_parallel": 2}, code={"gpus": 1})
    assert where(its) == [("retrieval", "node-1", (0, 1)), ("code", "node-2", (0,))]
    apart = placed(f"2xcpus=8,{GPU}", retrieval={"tensor_parallel": 2})
    assert "each needs 1 CPU, 2 GPUs; the best node, node-1, has 1 of 1 GPUs unused" in apart.refusals[0]


def test_a_gpu_in_use_is_not_a_whole_one() -> None:
    its = placed(f"cpus=8,{GPU}", retrieval={"gpus": 0.1}, code={"gpus": 1})
    assert its.refusals == (
        "code: 1 of 1 has no place; each needs 1 CPU, 1 GPU; the best node, node-1, has 0 of 1 GPUs unused",
    )


def test_every_refusal_is_there_with_what_is_needed_and_what_is_free() -> None:
    its = placed(
        "cpus=2,memory=8,label:zone=b,resource:fast=1",
        retrieval={"cpus": 4},
        text_matching={"memory_gib": 16, "resources": {"fast": 2}},
        code={"labels": {"zone": "a", "rack": "1"}},
    )
    assert its.refusals == (
        "retrieval: 1 of 1 has no place; each needs 4 CPUs; the best node, node-1, has 2 CPUs free",
        "text-matching: 1 of 1 has no place; each needs 1 CPU, 16 GiB of memory, 2 of the resource fast; the "
        "best node, node-1, has 8 GiB of memory free, 1 of the resource fast free",
        "code: 1 of 1 has no place; each needs 1 CPU, the label zone: a, the label rack: 1; the best node, "
        "node-1, has the label zone: b, no label rack",
    )
    assert not its.fits


def test_the_best_node_is_one_with_the_labels() -> None:
    its = placed(
        f"cpus=8,{GPU} cpus=1,label:zone=a", retrieval={"cpus": 2, "gpus": 1, "labels": {"zone": "a"}}
    )
    assert its.refusals[0].endswith("the best node, node-2, has 1 CPU free, 0 of 0 GPUs unused")


def test_replicas_per_node_spreads_them() -> None:
    its = placed("2xcpus=8", retrieval={"replicas": 3, "replicas_per_node": 1})
    assert [node for _, node, _ in where(its)] == ["node-1", "node-2"]
    assert its.refusals[0].endswith("the best node, node-1, has 1 there, the most on one node")


@pytest.mark.parametrize(("selector", "node"), [("a", "node-1"), ("!a", "node-2"), ("in(b,c)", "node-2")])
def test_labels_choose_nodes_as_ray_reads_them(selector: str, node: str) -> None:
    its = placed("cpus=8,label:zone=a cpus=8,label:zone=b", retrieval={"labels": {"zone": selector}})
    assert [name for _, name, _ in where(its)] == [node]


def test_without_nodes_everything_is_refused() -> None:
    its = plan(config(retrieval={}), (), WEIGHTS)
    assert [refusal.split(":")[0] for refusal in its.refusals] == ["retrieval", "router"]
    assert "there are no nodes" in its.refusals[0]


def test_there_is_a_router_on_each_node_with_the_labels() -> None:
    nodes = parse_nodes("2xcpus=8,label:edge=yes cpus=8")
    its = plan(config({"labels": {"edge": "yes"}}, retrieval={}), nodes, WEIGHTS)
    assert [node.router for node in its.nodes] == [True, True, False]
    assert (its.routers, its.routers_placed) == (2, 2)


def test_a_number_of_routers_needs_as_many_nodes() -> None:
    nodes = parse_nodes("2xcpus=8")
    assert sum(node.router for node in plan(config({"count": 1}, retrieval={}), nodes, WEIGHTS).nodes) == 1
    refused = plan(config({"count": 3}, retrieval={}), nodes, WEIGHTS)
    assert refused.refusals[0].startswith("router: 1 of 3 has no place")


def test_routers_find_what_the_pools_leave() -> None:
    its = plan(config({"cpus": 1}, retrieval={"cpus": 2}), parse_nodes("cpus=2"), WEIGHTS)
    assert its.refusals[0].startswith("router: 1 of 1 has no place; each needs 1 CPU; ")


def test_the_most_may_fit_for_one_pool_but_not_for_all() -> None:
    some = {"replicas": {"min": 1, "max": 3, "tokens_per_second": 9}}
    alone = placed("cpus=4", retrieval=some, code=some)
    assert [alone.pools[name].most_fit for name in alone.pools] == ["fits", "fits alone"]
    fewer = placed("cpus=3", retrieval=some)
    assert fewer.pools["retrieval"].most_fit == "fits"
    none = placed("cpus=2", retrieval=some)
    assert (none.pools["retrieval"].most_fit, none.pools["retrieval"].most_placed) == ("no room", 2)
    assert "retrieval: of its most, 3 replicas, 2 have a place" in none.warnings
    assert none.fits


def test_an_upgrade_may_have_no_room_for_one_more() -> None:
    tight = placed(f"cpus=8,{GPU}", retrieval={"gpus": 1, "surge_percent": 25})
    assert tight.pools["retrieval"].surge_fit == "no room"
    assert any("surge_percent: 0" in warning for warning in tight.warnings)
    assert tight.fits
    both = placed("cpus=3", retrieval={"surge_percent": 25}, code={"surge_percent": 25})
    assert [pool.surge_fit for pool in both.pools.values()] == ["fits", "fits alone"]
    assert "code: an upgrade has room only while no other pool is upgraded" in both.warnings


def test_of_a_pool_that_may_have_no_replica_there_is_none_to_upgrade() -> None:
    its = placed(
        "cpus=8", retrieval={"replicas": {"min": 0, "max": 2, "tokens_per_second": 9}, "surge_percent": 25}
    )
    assert "retrieval  0       0       2     fits      -\n" in render(its)


def test_weights_that_do_not_fit_are_refused_though_ray_has_room() -> None:
    its = placed("cpus=8,gpus=1,gpu_memory=24", retrieval={"gpus": 0.1})
    assert len(where(its)) == 1
    assert its.refusals == ("retrieval: weights of 7.0 GiB do not fit in 0.1 of a GPU of 24 GiB (2.2 GiB)",)


def test_a_gpu_too_small_that_ray_may_choose_is_refused_with_what_to_do() -> None:
    nodes = "cpus=8,gpus=1,gpu_memory=80,label:big=yes cpus=8,gpus=1,gpu_memory=16"
    its = placed(nodes, retrieval={"gpus": 0.3})
    assert [node for _, node, _ in where(its)] == ["node-1"]
    assert its.refusals[0].endswith("of a GPU of 16 GiB (4.3 GiB); keep it off such nodes with labels")
    assert placed(nodes, retrieval={"gpus": 0.3, "labels": {"big": "yes"}}).fits


def test_weights_are_checked_of_a_pool_that_is_scaled_to_zero() -> None:
    its = placed(
        "cpus=8,gpus=1,gpu_memory=16",
        retrieval={"gpus": 0.3, "replicas": {"min": 0, "max": 1, "tokens_per_second": 9}},
    )
    assert "do not fit" in its.refusals[0]


def test_unknown_memory_and_weights_are_said() -> None:
    nodes = parse_nodes("cpus=8,gpus=1")
    its = plan(config(retrieval={"gpus": 0.3, "memory_gib": 4}), nodes, WEIGHTS)
    assert "retrieval: the GPU's memory is unknown, so whether the weights fit is not checked" in its.warnings
    assert "retrieval: the main memory of node-1 is unknown, so memory_gib is not checked" in its.warnings
    other = plan(config(retrieval={"gpus": 0.3}), parse_nodes(f"cpus=8,{GPU}"), {})
    assert (
        "retrieval: the size of the weights is unknown, so whether they fit is not checked" in other.warnings
    )


def test_shares_of_one_gpu_over_its_memory_are_warned_of() -> None:
    share = {"gpus": 0.5, "worker": {"gpu_memory_utilization": 0.5}}
    its = placed(f"cpus=8,{GPU}", retrieval=share, code=share)
    assert any("together they take 1.00 of the memory of gpu 0 of node-1" in line for line in its.warnings)
    third = {"gpus": 0.33}
    fine = placed(f"cpus=8,{GPU}", retrieval=third, code=third, text_matching=third)
    assert fine.warnings == ("replicas that share a GPU start one after another, so a rollout takes longer",)


def test_nothing_is_warned_of_where_all_is_well() -> None:
    assert placed(f"2xcpus=8,{GPU}", retrieval={"gpus": 1}, code={"gpus": 1}).warnings == ()


def test_what_packing_would_change_is_said() -> None:
    pools: dict[str, dict[str, Any]] = {"retrieval": {"gpus": 0.5, "replicas": 2}, "code": {"gpus": 1}}
    its = placed(f"2xcpus=8,{GPU}", **pools)
    assert its.refusals[0].startswith("code: 1 of 1 has no place")
    assert any(NO_PACKING in warning for warning in its.warnings)
    packed = placed(f"2xcpus=8,{GPU}", pack=True, **pools)
    assert packed.fits
    assert not any(NO_PACKING in warning for warning in packed.warnings)


def test_what_depends_on_the_order_of_nodes_is_said() -> None:
    # The first replica needs no GPU; where it goes decides whether the second has cores beside its GPU.
    pools: dict[str, dict[str, Any]] = {"code": {"cpus": 4}, "retrieval": {"cpus": 4, "gpus": 1}}
    its = placed(f"cpus=4 cpus=4,{GPU}", **pools)
    assert its.fits
    assert any("not fit in every order" in warning for warning in its.warnings)


def test_a_node_where_ray_would_leave_a_replica_waiting_is_named() -> None:
    split = placed(
        "cpus=8,gpus=2,gpu_memory=80,label:a=1 cpus=8,gpus=1,gpu_memory=80",
        retrieval={"gpus": 0.6, "replicas": 2, "labels": {"a": "1"}},
        code={"gpus": 0.6},
    )
    assert split.fits
    assert any("code: Ray may send a replica to node-1" in warning for warning in split.warnings)


def test_a_node_has_no_more_workers_than_ports() -> None:
    few = config(retrieval={"replicas": 3}).model_copy(update={"worker_ports": "8101-8102"})
    its = plan(few, parse_nodes("cpus=8"), WEIGHTS)
    assert its.refusals == ("node-1: 3 workers, but worker_ports (8101-8102) has 2 ports",)


def test_the_text_is_a_table_of_nodes_and_one_of_pools() -> None:
    its = placed(
        "cpus=8,gpus=2,gpu_memory=80 name=edge,cpus=4",
        retrieval={"gpus": 0.3, "cpus": 2, "surge_percent": 25},
        code={"gpus": 0.3, "cpus": 1.5},
    )
    assert render(its) == (
        "node    CPUs   replicas             GPUs                            router\n"
        "node-1  3.5/8  retrieval 1, code 1  gpu 0: retrieval 0.3, code 0.3  router\n"
        "                                    gpu 1: -\n"
        "edge    0/4    -                    -                               router\n"
        "\n"
        "pool       fewest  placed  most  the most  an upgrade\n"
        "retrieval  1       1       1     fits      1 more: fits\n"
        "code       1       1       1     fits      stops an old one first\n"
        "routers 2 of 2\n"
        "\n"
        "retrieval: weights 7.0 + cache 1.1 + about 1 to work in is 9.1 GiB, within 0.3 of a GPU of 80 GiB "
        "(21.6 GiB)\n"
        "code: weights 7.0 + cache 1.1 + about 1 to work in is 9.1 GiB, within 0.3 of a GPU of 80 GiB "
        "(21.6 GiB)\n"
        "warning: replicas that share a GPU start one after another, so a rollout takes longer\n"
        "It fits."
    )


def test_what_is_refused_is_said_once_and_last() -> None:
    text = render(placed("cpus=8,gpus=1,gpu_memory=24", retrieval={"gpus": 0.1}))
    assert text.count("do not fit in") == 1
    assert text.endswith("(2.2 GiB)\nIt does not fit.")


def test_the_plan_is_json_too() -> None:
    its = json.loads(json.dumps(as_dict(placed(f"cpus=8,{GPU}", retrieval={"gpus": 0.3}))))
    assert its["fits"] is True
    assert its["nodes"][0]["replicas"] == [
        {"pool": "retrieval", "node": "node-1", "gpus": [0], "gpus_each": 0.3}
    ]
    assert its["pools"]["retrieval"]["most_fit"] == "fits"
