"""A plan of what goes where on a cluster: what it says, and how it is written down (pure)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from deploy.ray.nodes import Node
from deploy.ray.room import Placed
from workers.shared.contract import PoolName

Fit = Literal["fits", "fits alone", "no room"]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node with what is on it: cores and, for each GPU, the part that each pool's replicas take."""

    node: Node
    cpus_used: float
    replicas: tuple[Placed, ...]
    router: bool

    @property
    def devices(self) -> list[list[tuple[str, float]]]:
        """For each GPU, the pools on it with what each replica takes of it."""
        return [
            [(placed.pool, min(1.0, placed.gpus_each)) for placed in self.replicas if gpu in placed.gpus]
            for gpu in range(self.node.gpus)
        ]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool: how many of its fewest replicas have a place, and whether more would.

    The most, and an upgrade's surge, are tried beside the fewest of all pools: `fits` when all pools may do
    the same at once, `fits alone` when only this one may. `most_placed` have a place when it does alone.
    `memory` says how its weights fit a GPU.
    """

    fewest: int
    placed: int
    most: int
    most_placed: int
    most_fit: Fit
    surge: int
    surge_fit: Fit
    memory: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go where. It can be deployed when there are no refusals."""

    nodes: tuple[NodePlan, ...]
    pools: dict[PoolName, PoolPlan]
    routers: int
    routers_placed: int
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether all that runs at all times has a place, and its weights too as far as is known."""
        return not self.refusals

    @property
    def placed(self) -> list[Placed]:
        """Every replica that has a place; routers are in `NodePlan.router`."""
        return [placed for node in self.nodes for placed in node.replicas]


def render(plan: Plan) -> str:
    """The plan as text: a table of the nodes, a table of the pools, then warnings and refusals."""
    nodes = [("node", "CPUs", "replicas", "GPUs", "router")]
    for its in plan.nodes:
        counts = Counter(placed.pool for placed in its.replicas)
        gpus = [f"gpu {number}: {_shares(shares)}" for number, shares in enumerate(its.devices)]
        nodes.append(
            (
                its.node.name,
                f"{its.cpus_used:g}/{its.node.cpus:g}",
                ", ".join(f"{pool} {count}" for pool, count in counts.items()) or "-",
                gpus[0] if gpus else "-",
                "router" if its.router else "-",
            )
        )
        nodes += [("", "", "", gpu, "") for gpu in gpus[1:]]
    pools = [("pool", "fewest", "placed", "most", "the most", "an upgrade")]
    for name, pool in plan.pools.items():
        surge = f"{pool.surge} more: {pool.surge_fit}" if pool.surge else "stops an old one first"
        surge = surge if pool.fewest else "-"
        pools.append((name, str(pool.fewest), str(pool.placed), str(pool.most), pool.most_fit, surge))
    lines = [*_table(nodes), "", *_table(pools), f"routers {plan.routers_placed} of {plan.routers}", ""]
    memory = [f"{name}: {text}" for name, pool in plan.pools.items() for text in pool.memory]
    said = (*plan.warnings, *plan.refusals)
    lines += [line for line in memory if not any(other.startswith(line) for other in said)]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    lines += [f"refused: {refusal}" for refusal in plan.refusals]
    lines.append("It fits." if plan.fits else "It does not fit.")
    return "\n".join(lines)


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan for `json.dumps`."""
    return {"fits": plan.fits, **asdict(plan)}


def _shares(shares: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{pool} {share:g}" for pool, share in shares) or "-"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
