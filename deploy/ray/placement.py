"""What would go where on a cluster, and why what cannot: replicas and routers put on empty nodes (pure)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import cast

from deploy.ray.config import ClusterConfig
from deploy.ray.nodes import Node
from deploy.ray.plan import Fit, NodePlan, Plan, PoolPlan
from deploy.ray.room import UNIT, Cluster, Demand, Room, demand_of, empty_cluster, empty_room, matches, units
from deploy.ray.weights import Holds, Verdict, utilization, verdict
from workers.shared.contract import PoolName

ROUTER = "router"
# Above this the engines of a GPU have no room for what each takes beside its share.
MOST_UTILIZATION = 0.95
# How many starts of the ring are tried, in both directions: Ray's order of the nodes is that of random ids.
ORDERS = 8
PACKING = "it would fit with RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY=1 set where the head is started"


def plan(
    config: ClusterConfig,
    nodes: Sequence[Node],
    weights: Mapping[PoolName, float | None],
    *,
    pack: bool = False,
) -> Plan:
    """Where routers and replicas would go on `nodes`, if nothing else ran there.

    `weights` are GiB of each pool's model, None or left out where unknown. `pack`: as with
    RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY=1.
    """
    demands = {name: demand_of(name, pool) for name, pool in config.pools.items()}
    always = _always(config, nodes, demands)
    cluster = empty_cluster(nodes, pack)
    placed = cluster.place(always)
    verdicts = _verdicts(config, demands, nodes, weights)
    pools, fullest = _pool_plans(config, demands, cluster, placed, verdicts)
    unplaced = _unplaced(cluster, always, placed)
    warnings = [
        *_room_warnings(pools),
        *([] if pack else _order_warnings(nodes, always, refused=bool(unplaced))),
        *_verdict_texts(verdicts, "tight"),
        *_verdict_texts(verdicts, "unknown"),
        *_shared_gpu_warnings(config, fullest),
        *_memory_warnings(config, nodes),
        *_misled_warnings(cluster),
    ]
    return Plan(
        nodes=tuple(_node_plan(room) for room in cluster.rooms),
        pools=pools,
        routers=sum(demand.name == ROUTER for demand in always),
        routers_placed=placed[ROUTER],
        warnings=tuple(warnings),
        refusals=(*unplaced, *_verdict_texts(verdicts, "no"), *_port_refusals(config, cluster)),
    )


def _always(config: ClusterConfig, nodes: Sequence[Node], demands: Mapping[PoolName, Demand]) -> list[Demand]:
    """What runs at all times, in Serve's order: the pools', then the routers."""
    its = config.routers
    router = Demand(ROUTER, 0, {"CPU": units(its.cpus)}, its.labels, 1)
    routers = its.count or max(1, sum(matches(node.labels, its.labels) for node in nodes))
    pools = [demands[name] for name, pool in config.pools.items() for _ in range(pool.fewest)]
    return pools + [router] * routers


def _pool_plans(
    config: ClusterConfig,
    demands: Mapping[PoolName, Demand],
    cluster: Cluster,
    placed: Mapping[str, int],
    verdicts: Mapping[PoolName, Sequence[Verdict]],
) -> tuple[dict[PoolName, PoolPlan], Cluster]:
    """What is said of each pool; and the nodes with the most of all pools, as far as there is room."""
    more = {name: pool.most - pool.fewest for name, pool in config.pools.items()}
    most_fits, fullest = _try(cluster, demands, more)
    surge_fits, _ = _try(cluster, demands, {name: pool.surge for name, pool in config.pools.items()})
    plans = {}
    for name, pool in config.pools.items():
        short = placed[name] < pool.fewest
        plans[name] = PoolPlan(
            fewest=pool.fewest,
            placed=placed[name],
            most=pool.most,
            most_placed=placed[name] + cluster.copy().place([demands[name]] * more[name])[name],
            most_fit="no room" if short else most_fits[name],
            surge=pool.surge,
            surge_fit="no room" if short else surge_fits[name],
            memory=tuple(its.text for its in verdicts[name]),
        )
    return plans, fullest


def _try(
    cluster: Cluster, demands: Mapping[PoolName, Demand], more: Mapping[PoolName, int]
) -> tuple[dict[PoolName, Fit], Cluster]:
    """Whether so many more of each pool fit, of all pools at once or each alone; and the nodes with all."""
    together = cluster.copy()
    placed = together.place([demands[name] for name, count in more.items() for _ in range(count)])
    fits: dict[PoolName, Fit] = {}
    for name, count in more.items():
        if placed[name] == count:
            fits[name] = "fits"
        else:
            alone = cluster.copy().place([demands[name]] * count)[name] == count
            fits[name] = "fits alone" if alone else "no room"
    return fits, together


def _unplaced(cluster: Cluster, wanted: Sequence[Demand], placed: Mapping[str, int]) -> list[str]:
    refusals = []
    counts = Counter(demand.name for demand in wanted)
    for name, demand in {demand.name: demand for demand in wanted}.items():
        if missing := counts[name] - placed[name]:
            refusals.append(
                f"{name}: {missing} of {counts[name]} {'have' if missing > 1 else 'has'} no place; "
                f"each needs {demand.text}{_best_node(cluster.rooms, demand)}"
            )
    return refusals


def _best_node(rooms: Sequence[Room], demand: Demand) -> str:
    """What the best node has: the one that lacks the fewest things, of those the emptiest."""
    if not rooms:
        return "; there are no nodes"
    best = min(
        rooms,
        key=lambda room: (
            not matches(room.node.labels, demand.labels),
            len(room.lacks(demand)),
            -max(room.gpus, default=0),
            -room.free["CPU"],
        ),
    )
    return f"; the best node, {best.node.name}, has {', '.join(best.lacks(demand))}"


def _verdicts(
    config: ClusterConfig,
    demands: Mapping[PoolName, Demand],
    nodes: Iterable[Node],
    weights: Mapping[PoolName, float | None],
) -> dict[PoolName, list[Verdict]]:
    """For each pool with GPUs, how its weights fit each size of GPU that Ray may give to a replica.

    That is not only where this plan puts it: Ray knows no GPU's memory, and has an order of nodes of its own.
    """
    found: dict[PoolName, list[Verdict]] = {}
    for name, pool in config.pools.items():
        may = {node.gpu_memory_gib for node in nodes if not empty_room(node).lacks(demands[name])}
        sizes = sorted(may if demands[name].gpus else (), key=lambda size: (size is not None, size or 0))
        found[name] = [verdict(name, pool, weights.get(name), size) for size in sizes]
    return found


def _verdict_texts(verdicts: Mapping[PoolName, Sequence[Verdict]], holds: Holds) -> list[str]:
    lines: list[str] = []
    for name, of_pool in verdicts.items():
        elsewhere = holds == "no" and any(its.holds != "no" for its in of_pool)
        hint = "; keep it off such nodes with labels" if elsewhere else ""
        lines += dict.fromkeys(f"{name}: {its.text}{hint}" for its in of_pool if its.holds == holds)
    return lines


def _room_warnings(pools: Mapping[PoolName, PoolPlan]) -> list[str]:
    """Of pools whose fewest fit: those that cannot have their most, or be upgraded as configured."""
    warnings = []
    for name, pool in pools.items():
        if pool.placed < pool.fewest:
            continue
        if pool.most_fit == "no room":
            warnings.append(f"{name}: of its most, {pool.most} replicas, {pool.most_placed} have a place")
        elif pool.most_fit == "fits alone":
            warnings.append(
                f"{name}: its most, {pool.most} replicas, have a place only while other pools have fewer "
                "than theirs"
            )
        if pool.surge_fit == "no room":
            warnings.append(
                f"{name}: an upgrade would wait for room for {pool.surge} more; surge_percent: 0 stops an "
                "old replica first"
            )
        elif pool.surge_fit == "fits alone":
            warnings.append(f"{name}: an upgrade has room only while no other pool is upgraded")
    return warnings


def _order_warnings(nodes: Sequence[Node], always: Sequence[Demand], *, refused: bool) -> list[str]:
    """What depends on the order of the nodes, which is random in Ray, and what packing would change."""

    def all_placed(nodes: Sequence[Node], pack: bool = False) -> bool:
        return empty_cluster(nodes, pack).place(always).total() == len(always)

    packed = all_placed(nodes, pack=True)
    if refused:
        return [f"the default is to spread replicas over the nodes; {PACKING}"] if packed else []
    starts = range(min(len(nodes), ORDERS))
    rings = [[*nodes[start:], *nodes[:start]] for start in starts]
    if all(all_placed(ring) and all_placed(ring[::-1]) for ring in rings):
        return []
    return ["it does not fit in every order in which Ray may take the nodes" + (f"; {PACKING}" * packed)]


def _shared_gpu_warnings(config: ClusterConfig, cluster: Cluster) -> list[str]:
    warnings = []
    shared = False
    for room in cluster.rooms:
        for gpu in range(room.node.gpus):
            names = [placed.pool for placed in room.placed if gpu in placed.gpus]
            shared |= len(names) > 1
            total = sum(utilization(config.pools[cast(PoolName, name)]) for name in names)
            # Sums of shares such as 0.9 * 0.3 are a little off.
            if total > MOST_UTILIZATION + 1e-9:
                warnings.append(
                    f"{', '.join(dict.fromkeys(names))}: together they take {total:.2f} of the memory of gpu "
                    f"{gpu} of {room.node.name}, over {MOST_UTILIZATION:g}; the last to start may find too "
                    "little free"
                )
    if shared:
        warnings.append("replicas that share a GPU start one after another, so a rollout takes longer")
    return warnings


def _port_refusals(config: ClusterConfig, cluster: Cluster) -> list[str]:
    ports = len(config.port_range)
    return [
        f"{room.node.name}: {workers} workers, but worker_ports ({config.worker_ports}) has {ports} ports"
        for room in cluster.rooms
        if (workers := sum(placed.pool != ROUTER for placed in room.placed)) > ports
    ]


def _misled_warnings(cluster: Cluster) -> list[str]:
    return [
        f"{name}: Ray may send a replica to {node}, where the GPUs together have room for it but no single "
        "one has, and leave it waiting there (ray-project/ray#54729)"
        for name, node in sorted(cluster.misled)
    ]


def _memory_warnings(config: ClusterConfig, nodes: Iterable[Node]) -> list[str]:
    reserving = [name for name, pool in config.pools.items() if pool.memory_gib]
    unknown = [node.name for node in nodes if node.memory_gib is None]
    if not reserving or not unknown:
        return []
    names, where = ", ".join(reserving), ", ".join(unknown)
    return [f"{names}: the main memory of {where} is unknown, so memory_gib is not checked"]


def _node_plan(room: Room) -> NodePlan:
    return NodePlan(
        node=deepcopy(room.node),
        cpus_used=(units(room.node.cpus) - room.free["CPU"]) / UNIT,
        replicas=tuple(placed for placed in room.placed if placed.pool != ROUTER),
        router=any(placed.pool == ROUTER for placed in room.placed),
    )
