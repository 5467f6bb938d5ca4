"""Whether a deployment fits on nodes: CPUs, GPUs, memory, labels and GPU memory.

It puts replicas on empty nodes, the largest first, each on the first node with room. Ray decides for itself
where a replica goes, so this says whether there is room, not where a replica will run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triptych.deploy.common.gpu_memory import verdict
from triptych.deploy.ray.config import ClusterConfig, Pool
from triptych.deploy.ray.nodes import Node
from triptych.deploy.ray.ray_private import labels_match
from triptych.deploy.ray.status import ROUTERS, table
from triptych.workers.shared.contract import PoolName

# Sums of GPU parts such as 0.33 are not exact.
TOLERANCE = 1e-6


class Room:
    """What one node has left."""

    def __init__(self, node: Node) -> None:
        self.node = node
        memory = float("inf") if node.memory is None else node.memory
        self._free = Counter({**node.resources, "CPU": node.cpus, "GiB memory": memory})
        self._gpus = [1.0] * node.gpus
        self._placed: Counter[str] = Counter()

    def lacks(self, name: str, pool: Pool) -> list[str]:
        """What the node lacks for one more replica; empty if it fits."""
        lacks = [key for key, amount in _resources(pool).items() if self._free[key] < amount - TOLERANCE]
        if len(self._choose(pool.gpus_each)) < pool.gpus_each:
            lacks.append("GPU")
        for key, value in pool.labels.items():
            if not labels_match(self.node.labels, {key: value}):
                lacks.append(f"label {key}={value}")
        if pool.replicas_per_node and self._placed[name] >= pool.replicas_per_node:
            lacks.append("replicas_per_node")
        return lacks

    def take(self, name: str, pool: Pool) -> None:
        """Place a replica that fits."""
        for gpu in self._choose(pool.gpus_each):
            self._gpus[gpu] -= min(1.0, pool.gpus_each)
        self._free.subtract(_resources(pool))
        self._placed[name] += 1

    def _choose(self, gpus: float) -> list[int]:
        """The GPUs for a replica: a part of the fullest one with room, or whole unused ones."""
        part, count = (gpus, 1) if 0 < gpus < 1 else (1.0, int(gpus))
        free = sorted((left, gpu) for gpu, left in enumerate(self._gpus) if left >= part - TOLERANCE)
        return [gpu for _, gpu in free[:count]]


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
    wanted = config.routers
    count = wanted.count or max(1, sum(labels_match(node.labels, wanted.labels) for node in machines))
    routers = Pool.model_construct(
        model="", cpus=wanted.cpus, labels=wanted.labels, replicas=count, replicas_per_node=1
    )
    everything: dict[str, Pool] = {**config.pools, ROUTERS: routers}
    fewest = {name: pool.fewest for name, pool in everything.items()}
    fewest_fit = _place(machines, everything, fewest)
    most_fit = _place(machines, everything, {name: pool.most for name, pool in everything.items()})
    refusals = [
        _refusal(name, pool, fewest_fit[name], machines)
        for name, pool in everything.items()
        if fewest_fit[name] < pool.fewest
    ]
    warnings: list[str] = []
    pools: dict[PoolName, PoolFit] = {}
    for name, pool in config.pools.items():
        gpus = pool.gpus_each
        # Ray does not know GPU memory, so it may choose any of these nodes.
        sizes = dict.fromkeys(node.gpu_memory for node in nodes if gpus and not Room(node).lacks(name, pool))
        memory = [verdict(pool.engine(name), gpus, weights.get(name), size) for size in sizes]
        upgrade = _place(machines, everything, {**fewest, name: pool.fewest + pool.surge})
        pools[name] = PoolFit(
            each=_each(pool),
            fewest=pool.fewest,
            fewest_fit=fewest_fit[name],
            most=pool.most,
            most_fit=most_fit[name],
            upgrade_fits=upgrade.total() == fewest_fit.total() + pool.surge,
            gpu_memory=tuple(said.text for said in memory),
        )
        refusals += [f"{name}: {said.text}" for said in memory if said.holds == "no"]
        warnings += [f"{name}: {said.text}" for said in memory if said.holds == "unknown"]
    return Fit(not refusals, pools, count, fewest_fit[ROUTERS], warnings, refusals)


def _resources(pool: Pool) -> dict[str, float]:
    return {**pool.resources, "CPU": pool.cpus, "GiB memory": pool.memory_gib}


def _each(pool: Pool) -> str:
    """What one replica takes of a node."""
    parts = [f"{amount:g} {name}" for name, amount in _resources(pool).items() if amount]
    if pool.gpus_each:
        parts.append(f"{pool.gpus_each:g} GPU")
    parts += [f"label {key}={value}" for key, value in pool.labels.items()]
    return ", ".join(parts) or "nothing"


def _place(machines: Sequence[Node], pools: Mapping[str, Pool], counts: Mapping[str, int]) -> Counter[str]:
    """Place replicas on empty nodes; returns how many of each have room at the same time."""
    rooms = [Room(node) for node in machines]
    placed: Counter[str] = Counter()
    # Those that fit on few nodes come first.
    order = sorted(pools.items(), key=lambda pair: (bool(pair[1].labels), pair[1].gpus_each, pair[1].cpus))
    for name, pool in reversed(order):
        for _ in range(counts[name]):
            if room := next((room for room in rooms if not room.lacks(name, pool)), None):
                room.take(name, pool)
                placed[name] += 1
    return placed


def _refusal(name: str, pool: Pool, fit: int, machines: Sequence[Node]) -> str:
    text = f"{name}: {fit} of {pool.fewest} fit; each needs {_each(pool)}"
    # Of all nodes, the one that lacks the fewest things.
    all_lack = [(Room(node).lacks(name, pool), node.name) for node in machines]
    lacks, node = min(all_lack, key=lambda pair: len(pair[0]), default=([], ""))
    return f"{text}; no node has that: {node} lacks {', '.join(lacks)}" if lacks else text


def render(fit: Fit) -> str:
    """The result as a table of the pools, then warnings and refusals."""
    rows = [["pool", "fewest", "fit", "most", "fit", "upgrade", "each replica needs"]]
    for name, pool in fit.pools.items():
        counts = [str(count) for count in (pool.fewest, pool.fewest_fit, pool.most, pool.most_fit)]
        rows.append([name, *counts, "fits" if pool.upgrade_fits else "no room", pool.each])
    said = [*fit.warnings, *fit.refusals]
    memory = [f"{name}: {text}" for name, pool in fit.pools.items() for text in pool.gpu_memory]
    return "\n".join(
        [
            *table(rows),
            f"routers: {fit.routers_fit} of {fit.routers} fit",
            "",
            *(line for line in memory if line not in said),
            *(f"warning: {line}" for line in fit.warnings),
            *(f"refused: {line}" for line in fit.refusals),
            "It fits." if fit.fits else "It does not fit.",
        ]
    )
