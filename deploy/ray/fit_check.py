"""Whether a deployment fits on nodes: CPUs, GPUs, memory, labels and GPU memory.

It puts replicas on empty nodes, the largest first, each on the first node with room. Ray decides for itself
where a replica goes, so this says whether there is room, not where a replica will run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.common.gpu_memory import engine_share, verdict
from deploy.ray.config import ClusterConfig, Pool
from deploy.ray.nodes import Node
from deploy.ray.ray_private import labels_match
from deploy.ray.text_table import table
from workers.shared.contract import PoolName

ROUTERS = "routers"
# Above this the engines on a GPU have no room for what each takes beside its share.
MOST_UTILIZATION = 0.95
# Sums of GPU parts such as 0.33 are not exact.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes of a node: resources by name, GPUs, and the labels that the node must have."""

    name: str
    resources: dict[str, float]
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    per_node: int | None = None

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}" for name, amount in self.resources.items() if amount]
        parts += [f"{self.gpus:g} GPU"] if self.gpus else []
        parts += [f"label {key}={value}" for key, value in self.labels.items()]
        return ", ".join(parts) or "nothing"


class Room:
    """What one node has left."""

    def __init__(self, node: Node, ports: int) -> None:
        self.node = node
        memory = float("inf") if node.memory is None else node.memory
        self._free = Counter({**node.resources, "CPU": node.cpus, "GiB memory": memory})
        self._gpus = [1.0] * node.gpus
        self._ports = ports
        self._placed: Counter[str] = Counter()

    def lacks(self, need: Need) -> list[str]:
        """What the node lacks for one more replica; empty if it fits."""
        lacks = [name for name, amount in need.resources.items() if self._free[name] < amount - TOLERANCE]
        lacks += [] if self._choose(need.gpus) is not None else ["GPU"]
        lacks += [
            f"label {key}={value}"
            for key, value in need.labels.items()
            if not labels_match(self.node.labels, {key: value})
        ]
        if need.per_node is not None and self._placed[need.name] >= need.per_node:
            lacks.append("replicas_per_node" if need.name != ROUTERS else "one router per node")
        if need.name != ROUTERS and self._placed.total() - self._placed[ROUTERS] >= self._ports:
            lacks.append("worker_ports")
        return lacks

    def take(self, need: Need) -> None:
        """Place a replica that fits."""
        for gpu in self._choose(need.gpus) or ():
            self._gpus[gpu] -= min(1.0, need.gpus)
        self._free.subtract(need.resources)
        self._placed[need.name] += 1

    def _choose(self, gpus: float) -> list[int] | None:
        """The GPUs for a replica: a part of the fullest one, or whole unused ones. None if there are none."""
        least, count = (gpus, 1) if gpus < 1 else (1.0, int(gpus))
        free = sorted((left, gpu) for gpu, left in enumerate(self._gpus) if left >= least - TOLERANCE)
        if gpus and len(free) < count:
            return None
        return [gpu for _, gpu in free[:count]] if gpus else []


@dataclass(frozen=True, slots=True)
class PoolFit:
    """How many of a pool's fewest and most replicas fit, and whether an upgrade fits."""

    each: str
    fewest: int
    fewest_fit: int
    most: int
    most_fit: int
    upgrade_fits: bool
    gpu_memory: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a deployment fits: it does unless there are refusals."""

    fits: bool
    pools: dict[PoolName, PoolFit]
    routers: int
    routers_fit: int
    warnings: list[str]
    refusals: list[str]


def check_fit(config: ClusterConfig, nodes: Sequence[Node], weights: Mapping[PoolName, float | None]) -> Fit:
    """Compare a deployment with empty nodes. `weights` are GiB for each pool, None if unknown."""
    machines = [node for node in nodes for _ in range(node.count)]
    labels = config.routers.labels
    routers = config.routers.count or max(1, sum(labels_match(node.labels, labels) for node in machines))
    needs: dict[str, Need] = {name: _need(name, pool) for name, pool in config.pools.items()}
    needs[ROUTERS] = Need(ROUTERS, {"CPU": config.routers.cpus}, labels=labels, per_node=1)

    def fit(counts: Mapping[str, int]) -> Counter[str]:
        rooms = [Room(node, len(config.port_range)) for node in machines]
        return _place(rooms, [(needs[name], count) for name, count in {**counts, ROUTERS: routers}.items()])

    fewest: dict[str, int] = {name: pool.fewest for name, pool in config.pools.items()}
    fewest_fit, most_fit = fit(fewest), fit({name: pool.most for name, pool in config.pools.items()})
    pools: dict[PoolName, PoolFit] = {}
    warnings: list[str] = []
    refusals: list[str] = []
    for name, pool in config.pools.items():
        # Ray does not know GPU memory, so it may choose any of these nodes.
        may = [node.gpu_memory for node in nodes if pool.gpus_each and not Room(node, 1).lacks(needs[name])]
        memory = [
            verdict(pool.engine(name), pool.gpus_each, weights.get(name), size) for size in dict.fromkeys(may)
        ]
        upgrade = fit({**fewest, name: pool.fewest + pool.surge})
        pools[name] = found = PoolFit(
            each=str(needs[name]),
            fewest=pool.fewest,
            fewest_fit=fewest_fit[name],
            most=pool.most,
            most_fit=most_fit[name],
            upgrade_fits=upgrade.total() == fewest_fit.total() + pool.surge,
            gpu_memory=tuple(its.text for its in memory),
        )
        refusals += _no_room(needs[name], found.fewest, found.fewest_fit, machines)
        refusals += [f"{name}: {its.text}" for its in memory if its.holds == "no"]
        warnings += [f"{name}: {its.text}" for its in memory if its.holds in ("tight", "unknown")]
        warnings += _pool_warnings(name, pool, found)
    refusals += _no_room(needs[ROUTERS], routers, fewest_fit[ROUTERS], machines)
    return Fit(not refusals, pools, routers, fewest_fit[ROUTERS], warnings, refusals)


def _need(name: str, pool: Pool) -> Need:
    resources = {**pool.resources, "CPU": pool.cpus, "GiB memory": pool.memory_gib}
    return Need(name, resources, pool.gpus_each, pool.labels, pool.replicas_per_node)


def _place(rooms: Sequence[Room], wanted: Sequence[tuple[Need, int]]) -> Counter[str]:
    """Place replicas on nodes; returns how many of each had room at the same time."""
    placed: Counter[str] = Counter()
    # Those that fit on few nodes come first.
    order = sorted(wanted, key=lambda its: (bool(its[0].labels), its[0].gpus, its[0].resources["CPU"]))
    for need, count in reversed(order):
        for _ in range(count):
            if room := next((room for room in rooms if not room.lacks(need)), None):
                room.take(need)
                placed[need.name] += 1
    return placed


def _no_room(need: Need, count: int, fit: int, machines: Sequence[Node]) -> list[str]:
    if fit == count:
        return []
    text = f"{need.name}: {fit} of {count} fit; each needs {need}"
    lacks = [(Room(node, 1).lacks(need), node.name) for node in machines]
    if all(lack for lack, _ in lacks):
        # Of all nodes, the one that lacks the fewest things.
        lack, name = min(lacks, key=lambda its: len(its[0]), default=([], ""))
        text += f"; no node has that: {name} lacks {', '.join(lack)}" if lack else "; there are no nodes"
    return [text]


def _pool_warnings(name: PoolName, pool: Pool, found: PoolFit) -> list[str]:
    warnings = []
    fits = found.fewest_fit == found.fewest
    if fits and found.most_fit < found.most:
        warnings.append(f"{name}: of at most {found.most} replicas, {found.most_fit} fit")
    if fits and not found.upgrade_fits:
        warnings.append(
            f"{name}: an upgrade has no room for {pool.surge} more; surge_percent: 0 stops an old one first"
        )
    gpus = pool.gpus_each
    if gpus and engine_share(pool.engine(name), gpus) > MOST_UTILIZATION * min(1.0, gpus):
        warnings.append(f"{name}: its share of GPU memory is larger than its part of the GPU")
    return warnings


def render(fit: Fit) -> str:
    """The result as a table of the pools, then warnings and refusals."""
    rows = [["pool", "fewest", "fit", "most", "fit", "upgrade", "each replica needs"]]
    for name, its in fit.pools.items():
        upgrade = "fits" if its.upgrade_fits else "no room"
        counts = [str(count) for count in (its.fewest, its.fewest_fit, its.most, its.most_fit)]
        rows.append([name, *counts, upgrade, its.each])
    lines = [*table(rows), f"routers: {fit.routers_fit} of {fit.routers} fit", ""]
    said = [*fit.warnings, *fit.refusals]
    memory = [f"{name}: {text}" for name, its in fit.pools.items() for text in its.gpu_memory]
    lines += [line for line in memory if line not in said]
    lines += [f"warning: {line}" for line in fit.warnings]
    lines += [f"refused: {line}" for line in fit.refusals]
    lines.append("It fits." if fit.fits else "It does not fit.")
    return "\n".join(lines)
