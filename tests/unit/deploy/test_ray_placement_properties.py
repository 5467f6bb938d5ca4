"""What holds of every plan, whatever the nodes and the pools."""

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.ray.config import ClusterConfig, Pool, parse_config
from deploy.ray.nodes import Node
from deploy.ray.placement import plan
from deploy.ray.plan import Plan

ray_selector = pytest.importorskip("ray._raylet").node_labels_match_selector

SELECTORS = ["a", "b", "!a", "in(a,b)", "!in(a,b)", "in(a, b)"]
LABELS: st.SearchStrategy[dict[str, str]] = st.dictionaries(
    st.sampled_from(["zone", "rack"]), st.sampled_from("abc"), max_size=2
)
NODES = st.lists(
    st.builds(
        Node,
        name=st.just(""),
        cpus=st.sampled_from([0, 1, 2.5, 8]),
        gpus=st.integers(0, 3),
        memory_gib=st.sampled_from([None, 4, 16]),
        resources=st.dictionaries(st.just("fast"), st.sampled_from([0.5, 2])),
        labels=LABELS,
    ),
    max_size=4,
).map(lambda nodes: [Node(f"n{i}", *_rest(node)) for i, node in enumerate(nodes)])


def _rest(node: Node) -> tuple[Any, ...]:
    return (node.cpus, node.gpus, node.gpu_memory_gib, node.memory_gib, node.resources, node.labels)


GPUS = st.one_of(
    st.sampled_from([0, 0.1, 0.3, 0.35, 0.5, 0.6, 1]).map(lambda gpus: {"gpus": gpus}),
    st.just({"tensor_parallel": 2}),
)
REPLICAS = st.one_of(
    st.integers(1, 4),
    st.tuples(st.integers(0, 2), st.integers(2, 5)).map(
        lambda range: {"min": range[0], "max": range[1], "tokens_per_second": 9}
    ),
)
POOL = st.builds(
    lambda gpus, **its: gpus | its | {"model": "m"},
    GPUS,
    replicas=REPLICAS,
    cpus=st.sampled_from([0.5, 1, 1.5, 2]),
    memory_gib=st.sampled_from([0, 0, 3]),
    surge_percent=st.sampled_from([0, 25, 100]),
    replicas_per_node=st.sampled_from([None, None, 1, 2]),
    resources=st.one_of(st.just({}), st.just({}), st.just({"fast": 0.5})),
    labels=st.dictionaries(st.just("zone"), st.sampled_from(SELECTORS), max_size=1),
)
CONFIGS = st.builds(
    lambda pools, routers: parse_config({"pools": pools, "routers": routers}),
    st.dictionaries(st.sampled_from(["retrieval", "text-matching", "code"]), POOL, min_size=1),
    st.fixed_dictionaries({"cpus": st.sampled_from([0, 0, 1]), "count": st.sampled_from([None, 1, 2])}),
)


class Left:
    """What a plan leaves of a node, counted anew and exactly."""

    def __init__(self, its: Plan, config: ClusterConfig, number: int) -> None:
        node_plan = its.nodes[number]
        self.node = node = node_plan.node
        self.cpus = exact(node.cpus) - (exact(config.routers.cpus) if node_plan.router else 0)
        self.memory = None if node.memory_gib is None else exact(node.memory_gib)
        self.fast = exact(node.resources.get("fast", 0))
        self.gpus = [Fraction(1)] * node.gpus
        self.counts = Counter(placed.pool for placed in node_plan.replicas)
        for placed in node_plan.replicas:
            pool = config.pools[placed.pool]
            self.cpus -= exact(pool.cpus)
            self.fast -= exact(pool.resources.get("fast", 0))
            if self.memory is not None:
                self.memory -= exact(pool.memory_gib)
            for gpu in placed.gpus:
                self.gpus[gpu] -= min(Fraction(1), exact(pool.gpus_each))

    def holds(self, name: str, pool: Pool) -> bool:
        """Whether one more replica would fit."""
        need = exact(pool.gpus_each)
        gpus = (
            sum(left == 1 for left in self.gpus) >= need
            if need >= 1
            else not need or any(left >= need for left in self.gpus)
        )
        return (
            gpus
            and self.cpus >= exact(pool.cpus)
            and self.fast >= exact(pool.resources.get("fast", 0))
            and (self.memory is None or self.memory >= exact(pool.memory_gib))
            and (pool.replicas_per_node is None or self.counts[name] < pool.replicas_per_node)
            and ray_selector(self.node.labels, pool.labels)
        )


def exact(number: float) -> Fraction:
    return Fraction(str(number))


@given(NODES, CONFIGS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_nothing_is_placed_beyond_what_a_node_has(
    nodes: list[Node], config: ClusterConfig, pack: bool
) -> None:
    its = plan(config, nodes, {}, pack=pack)
    for number in range(len(nodes)):
        left = Left(its, config, number)
        assert min([left.cpus, left.fast, left.memory or Fraction(0), *left.gpus]) >= 0
        assert left.memory is None or left.memory >= 0
        for name, count in left.counts.items():
            pool = config.pools[name]
            assert count <= (pool.replicas_per_node or count)
            assert ray_selector(left.node.labels, pool.labels)


@given(NODES, CONFIGS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_part_of_a_gpu_is_of_one_and_whole_gpus_are_different_ones(
    nodes: list[Node], config: ClusterConfig, pack: bool
) -> None:
    for placed in plan(config, nodes, {}, pack=pack).placed:
        pool = config.pools[placed.pool]
        assert len(set(placed.gpus)) == len(placed.gpus) == -(-pool.gpus_each // 1)


@given(NODES, CONFIGS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_it_fits_when_every_replica_is_placed_once_and_else_there_is_no_room(
    nodes: list[Node], config: ClusterConfig, pack: bool
) -> None:
    its = plan(config, nodes, {}, pack=pack)
    counts = Counter(placed.pool for placed in its.placed)
    missing = {name for name, pool in config.pools.items() if counts[name] != pool.fewest}
    assert all(counts[name] <= pool.fewest for name, pool in config.pools.items())
    assert its.fits == (not missing and its.routers == sum(node.router for node in its.nodes))
    assert {refusal.split(":")[0] for refusal in its.refusals} - {"router"} == missing
    for name in missing:
        assert not any(Left(its, config, n).holds(name, config.pools[name]) for n in range(len(nodes)))
    for name, pool in its.pools.items():
        assert pool.placed == counts[name] <= pool.most_placed <= pool.most
        assert (pool.most_fit == "no room") == (pool.most_placed < pool.most)
        if name in missing:
            assert pool.surge_fit == pool.most_fit == "no room"
        elif pool.surge_fit != "no room" and pool.surge:
            assert any(Left(its, config, n).holds(name, config.pools[name]) for n in range(len(nodes)))
