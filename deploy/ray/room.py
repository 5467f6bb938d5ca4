"""What nodes have left while replicas are put on them, one after another, as Ray and Serve do it (pure).

Ray counts in ten-thousandths and cuts off the rest, and so does this.

The choice of nodes, by default: Serve hands over one pool's replicas after another's, in the configuration's
order, each with the strategy SPREAD (`_schedule_with_spread_strategy` in
ray/serve/_private/deployment_scheduler.py), which takes the next node in a ring that has room
(src/ray/raylet/scheduling/policy/spread_scheduling_policy.cc). With RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY=1
what demands most goes first, to the node that is in use already and has least left
(`_schedule_with_pack_strategy`). On a node, a part of a GPU comes from the GPU that has least left, and whole
GPUs are unused ones (`TryAllocate` in src/ray/common/scheduling/resource_instance_set.cc).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Ray itself uses it from Python, but its stub leaves it out.
from ray._raylet import node_labels_match_selector  # type: ignore[attr-defined]

from deploy.ray.config import Pool
from deploy.ray.nodes import Node

UNIT = 10_000
UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica of a pool, or a router: its node, and the GPUs there that it takes `gpus_each` of."""

    pool: str
    node: str
    gpus: tuple[int, ...] = ()
    gpus_each: float = 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica asks for, in ten-thousandths; memory in bytes."""

    name: str
    gpus: int
    amounts: dict[str, int]
    labels: dict[str, str]
    per_node: int | None

    @property
    def text(self) -> str:
        parts = [_amount(name, number) for name, number in self.amounts.items() if number]
        parts += [_amount("GPU", self.gpus)] if self.gpus else []
        parts += [f"the label {key}: {value}" for key, value in self.labels.items()]
        return ", ".join(parts) or "a node"


@dataclass(slots=True)
class Room:
    """What a node has left."""

    node: Node
    free: dict[str, int]
    gpus: list[int]
    placed: list[Placed] = field(default_factory=list)

    def lacks(self, demand: Demand) -> list[str]:
        """What keeps a replica off this node, in words; nothing when it fits."""
        return self._lacks_besides_gpus(demand) + (
            [] if self._pick(demand.gpus) is not None else [self._gpus_left(demand.gpus)]
        )

    def misleads(self, demand: Demand) -> bool:
        """Whether Ray would choose the node, by the sum of its GPUs, though no GPU has room."""
        return (
            len(self.gpus) > 1
            and sum(self.gpus) >= demand.gpus
            and self._pick(demand.gpus) is None
            and not self._lacks_besides_gpus(demand)
        )

    def take(self, demand: Demand) -> None:
        """Put a replica here, which has to fit."""
        picked = self._pick(demand.gpus)
        assert picked is not None, "This is a bug: a replica was put where it does not fit."
        for name, number in demand.amounts.items():
            self.free[name] = self.free.get(name, 0) - number
        for gpu in picked:
            self.gpus[gpu] -= min(demand.gpus, UNIT)
        self.placed.append(Placed(demand.name, self.node.name, picked, demand.gpus / UNIT))

    def left_after(self, demand: Demand) -> tuple[int, ...]:
        """What would be left, in the order in which Serve compares it when it packs."""
        return (
            sum(self.gpus) - demand.gpus,
            *(self.free.get(name, 0) - demand.amounts.get(name, 0) for name in ("CPU", "memory")),
        )

    def _lacks_besides_gpus(self, demand: Demand) -> list[str]:
        lacks = [
            f"{_amount(name, self.free.get(name, 0))} free"
            for name, number in demand.amounts.items()
            if self.free.get(name, 0) < number
        ]
        lacks += [
            f"the label {key}: {self.node.labels[key]}" if key in self.node.labels else f"no label {key}"
            for key, value in demand.labels.items()
            if not matches(self.node.labels, {key: value})
        ]
        here = sum(placed.pool == demand.name for placed in self.placed)
        if demand.per_node is not None and here >= demand.per_node:
            lacks.append(f"{here} there, the most on one node")
        return lacks

    def _pick(self, gpus: int) -> tuple[int, ...] | None:
        """The GPUs that a replica would get: unused whole ones, or the fullest with that much left."""
        if gpus >= UNIT:
            unused = [gpu for gpu, left in enumerate(self.gpus) if left == UNIT]
            count = gpus // UNIT
            return tuple(unused[:count]) if len(unused) >= count else None
        if not gpus:
            return ()
        enough = [(left, gpu) for gpu, left in enumerate(self.gpus) if left >= gpus]
        return (min(enough)[1],) if enough else None

    def _gpus_left(self, gpus: int) -> str:
        if gpus >= UNIT:
            return f"{sum(left == UNIT for left in self.gpus)} of {len(self.gpus)} GPUs unused"
        return f"at most {max(self.gpus, default=0) / UNIT:g} of a GPU free"


@dataclass(slots=True)
class Cluster:
    """All nodes while they fill up. `misled` are pools with nodes where Ray would leave a replica waiting."""

    rooms: list[Room]
    pack: bool
    turn: int = 0
    misled: set[tuple[str, str]] = field(default_factory=set)

    def place(self, demands: Iterable[Demand]) -> Counter[str]:
        """Place what can be, and how many of each pool that were."""
        order = sorted(demands, key=_weight, reverse=True) if self.pack else demands
        return Counter(demand.name for demand in order if self._place(demand))

    def copy(self) -> "Cluster":
        """The same, to try something on."""
        rooms = [Room(room.node, dict(room.free), list(room.gpus), list(room.placed)) for room in self.rooms]
        return Cluster(rooms, self.pack, self.turn, self.misled)

    def _place(self, demand: Demand) -> bool:
        count = len(self.rooms)
        ring = [(self.turn + step) % count for step in range(count)]
        fitting = (number for number in ring if not self.rooms[number].lacks(demand))
        if self.pack:
            chosen = min(fitting, key=lambda number: self._packing(number, demand), default=None)
        else:
            chosen = next(fitting, None)
        if chosen is None:
            return False
        self.misled |= {(demand.name, room.node.name) for room in self.rooms if room.misleads(demand)}
        self.rooms[chosen].take(demand)
        self.turn = (chosen + 1) % count
        return True

    def _packing(self, number: int, demand: Demand) -> tuple[bool, tuple[int, ...]]:
        room = self.rooms[number]
        return (not room.placed, room.left_after(demand))


def empty_cluster(nodes: Iterable[Node], pack: bool) -> Cluster:
    """Nodes with nothing on them. `pack`: fill them one by one, where Serve else spreads."""
    return Cluster([empty_room(node) for node in nodes], pack)


def empty_room(node: Node) -> Room:
    """A node with nothing on it."""
    free = {name: units(amount) for name, amount in node.resources.items()}
    free["CPU"] = units(node.cpus)
    free["memory"] = UNLIMITED if node.memory_gib is None else int(node.memory_gib * 2**30)
    return Room(node, free, [UNIT] * node.gpus)


def demand_of(name: str, pool: Pool) -> Demand:
    """What each replica of a pool asks for."""
    amounts = {"CPU": units(pool.cpus), "memory": int(pool.memory_gib * 2**30)}
    amounts |= {resource: units(amount) for resource, amount in pool.resources.items()}
    return Demand(name, units(pool.gpus_each), amounts, pool.labels, pool.replicas_per_node)


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether labels meet a selector, by Ray itself: `a`, `!a`, `in(a,b)` or `!in(a,b)`.

    A space after a comma belongs to the value. A node without the label meets what is negated.
    """
    return bool(node_labels_match_selector(dict(labels), dict(selector)))


def units(amount: float) -> int:
    """An amount of a resource as Ray counts it: in ten-thousandths, the rest cut off."""
    return int(amount * UNIT)


def _weight(demand: Demand) -> tuple[int, ...]:
    """What Serve sorts by when it packs: GPUs, cores, memory, then the rest."""
    rest = sum(number for name, number in demand.amounts.items() if name not in ("CPU", "memory"))
    return (demand.gpus, demand.amounts["CPU"], demand.amounts.get("memory", 0), rest)


def _amount(name: str, number: int) -> str:
    if name == "memory":
        return f"{number / 2**30:.4g} GiB of memory"
    amount = number / UNIT
    if name == "GPU" and amount < 1:
        return f"{amount:g} of a GPU"
    if name in ("CPU", "GPU"):
        return f"{amount:g} {name}{'' if amount == 1 else 's'}"
    return f"{amount:g} of the resource {name}"
