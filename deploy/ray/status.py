"""The status of a deployment on a cluster: from Serve, the directory and Ray to a table (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from triptych.deploy.ray.book import Overview
from triptych.deploy.ray.config import Autoscaling, ClusterConfig
from triptych.deploy.ray.pressure import Pressure
from triptych.workers.shared.contract import PoolName

RUNNING = "RUNNING"
FAILED = "DEPLOY_FAILED"
ROUTERS = "routers"
SILENT = "the directory does not answer"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A worker that serves; `routers` is how many send it work."""

    address: str
    node: str
    routers: int


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool: its state in Serve, its replicas, and the waiting and running tokens in all routers."""

    application: str
    message: str
    wanted: str
    states: dict[str, int]
    replicas: list[ReplicaStatus]
    waiting_tokens: float
    running_tokens: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Status:
    """The whole deployment. Replicas and routers are unknown while the directory does not answer."""

    name: str
    directory: bool
    pools: dict[PoolName, PoolStatus]
    routers_application: str
    routers_message: str
    routers: list[str]
    nodes: int
    failed: dict[str, str]

    @property
    def settled(self) -> bool:
        """Whether everything runs, no replica starts or stops, and all routers send work to all replicas."""
        running = self.routers_application == RUNNING and bool(self.routers)
        return running and all(
            pool.application == RUNNING
            and not set(pool.states) - {RUNNING}
            and len(pool.replicas) == pool.states.get(RUNNING, 0)
            and all(replica.routers == len(self.routers) for replica in pool.replicas)
            for pool in self.pools.values()
        )

    @property
    def healthy(self) -> bool:
        """Whether every pool and the routers serve."""
        return bool(self.routers) and all(
            pool.replicas or pool.wanted.startswith("0") for pool in self.pools.values()
        )

    @property
    def line(self) -> str:
        parts = [
            f"{name} {len(pool.replicas)}/{pool.wanted}" + _others(pool.states)
            for name, pool in self.pools.items()
        ]
        return "; ".join([*parts, f"routers {len(self.routers)}", *([] if self.directory else [SILENT])])


def read_status(
    config: ClusterConfig,
    applications: Mapping[str, Any],
    overview: Overview | None,
    nodes: Sequence[Mapping[str, Any]],
) -> Status:
    """The status from `serve.status().applications`, the directory and `ray.nodes()`.

    `overview` is None when the directory did not answer.
    """
    seen = overview or Overview([], [], {})
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    ours = {part: applications.get(f"{config.name}-{part}") for part in (*config.pools, ROUTERS)}
    pools = {}
    for name, pool in config.pools.items():
        scaling = pool.replicas
        pools[name] = PoolStatus(
            application=_state(ours[name]),
            message=_message(ours[name]),
            wanted=f"{scaling.min}-{scaling.max}" if isinstance(scaling, Autoscaling) else str(scaling),
            states=_states(ours[name]),
            replicas=[
                ReplicaStatus(
                    member.address,
                    addresses.get(member.node, "gone"),
                    sum(member.address in router.serving for router in seen.routers),
                )
                for member in seen.members
                if member.pool == name
            ],
            **asdict(seen.pressures.get(name, Pressure())),
        )
    return Status(
        name=config.name,
        directory=overview is not None,
        pools=pools,
        routers_application=_state(ours[ROUTERS]),
        routers_message=_message(ours[ROUTERS]),
        routers=[router.url for router in seen.routers],
        nodes=len(addresses),
        failed={
            f"{config.name}-{part}": _message(application)
            for part, application in ours.items()
            if _state(application) == FAILED
        },
    )


def render(status: Status) -> str:
    rows = [["pool", "state", "replicas", "wanted", "waiting", "running", "tokens/s", "where"]]
    for name, pool in status.pools.items():
        load = (pool.waiting_tokens, pool.running_tokens, pool.tokens_per_second)
        where = ", ".join(replica.address for replica in pool.replicas) or "-"
        state = pool.application.lower() + _others(pool.states)
        numbers = [str(len(pool.replicas)), pool.wanted, *(f"{tokens:,.0f}" for tokens in load)]
        rows.append([name, state, *numbers, where])
    lines = table(rows)
    lines.append(f"routers {status.routers_application.lower()}: {', '.join(status.routers) or '-'}")
    lines.append(f"nodes {status.nodes}; waiting and running in tokens, arriving tokens/s")
    if not status.directory:
        lines.append(f"{SILENT}: replicas and routers go on serving, but are not listed")
    lines += [f"{name}: {message}" for name, message in status.failed.items()]
    return "\n".join(lines)


def _state(application: Any) -> str:
    """Serve's state of an application; None is one that Serve does not know."""
    return str(application.status.value) if application else "NOT_STARTED"


def _message(application: Any) -> str:
    """Serve's messages about an application and its deployments."""
    parts = (application, *application.deployments.values()) if application else ()
    return "; ".join(part.message for part in parts if part.message)


def _states(application: Any) -> dict[str, int]:
    """The number of replicas in each state."""
    if not application or not application.deployments:
        return {}
    [deployment] = application.deployments.values()
    states = deployment.replica_states.items()
    return {str(getattr(state, "value", state)): count for state, count in states if count}


def _others(states: Mapping[str, int]) -> str:
    others = [f"{count} {state.lower()}" for state, count in states.items() if state != RUNNING]
    return f" ({', '.join(others)})" if others else ""


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table with left-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
