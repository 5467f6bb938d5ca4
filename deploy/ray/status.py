"""The status of a deployment on a cluster: from Serve, the directory and Ray to a table (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.ray.book import Overview
from deploy.ray.config import Autoscaling, ClusterConfig
from deploy.ray.pressure import Pressure
from deploy.ray.text_table import table
from workers.shared.contract import PoolName

RUNNING = "RUNNING"
FAILED = ("DEPLOY_FAILED",)
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
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether everything runs and no replica starts or stops."""
        running = self.routers_application == RUNNING and bool(self.routers)
        return running and all(
            pool.application == RUNNING and not set(pool.states) - {RUNNING} for pool in self.pools.values()
        )

    @property
    def healthy(self) -> bool:
        """Whether every pool and the routers serve."""
        return bool(self.routers) and all(
            pool.replicas or pool.wanted.startswith("0") for pool in self.pools.values()
        )

    @property
    def line(self) -> str:
        """The status in one line."""
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
    directory = overview is not None
    overview = overview or Overview([], [], {})
    names = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    pools = {}
    failed: dict[str, str] = {}
    for name, pool in config.pools.items():
        said = applications.get(f"{config.name}-{name}")
        ours = [member for member in overview.members if member.pool == name]
        pressure = overview.pressures.get(name, Pressure())
        scaling = pool.replicas
        pools[name] = PoolStatus(
            application=said.status.value if said else "NOT_STARTED",
            message=_message(said),
            wanted=f"{scaling.min}-{scaling.max}" if isinstance(scaling, Autoscaling) else str(scaling),
            states=_states(said),
            replicas=[
                ReplicaStatus(
                    member.address,
                    names.get(member.node, "gone"),
                    sum(member.address in router.serving for router in overview.routers),
                )
                for member in ours
            ],
            waiting_tokens=pressure.waiting_tokens,
            running_tokens=pressure.running_tokens,
            tokens_per_second=pressure.tokens_per_second,
        )
    said = applications.get(f"{config.name}-routers")
    for part in (*config.pools, "routers"):
        its = applications.get(f"{config.name}-{part}")
        if its is not None and its.status.value in FAILED:
            failed[f"{config.name}-{part}"] = _message(its)
    return Status(
        name=config.name,
        directory=directory,
        pools=pools,
        routers_application=said.status.value if said else "NOT_STARTED",
        routers_message=_message(said),
        routers=[router.url for router in overview.routers],
        nodes=len(names),
        failed=failed,
    )


def render(status: Status) -> str:
    """The status as a table."""
    rows = [("pool", "state", "replicas", "wanted", "waiting", "running", "tokens/s", "where")]
    for name, pool in status.pools.items():
        rows.append(
            (
                name,
                pool.application.lower() + _others(pool.states),
                str(len(pool.replicas)),
                pool.wanted,
                f"{pool.waiting_tokens:,.0f}",
                f"{pool.running_tokens:,.0f}",
                f"{pool.tokens_per_second:,.0f}",
                ", ".join(replica.address for replica in pool.replicas) or "-",
            )
        )
    lines = table(rows)
    lines.append(f"routers {status.routers_application.lower()}: {', '.join(status.routers) or '-'}")
    lines.append(f"nodes {status.nodes}; waiting and running in tokens, arriving tokens/s")
    if not status.directory:
        lines.append(f"{SILENT}: replicas and routers go on serving, but are not listed")
    lines += [f"{name}: {message}" for name, message in status.failed.items()]
    return "\n".join(lines)


def _message(said: Any) -> str:
    """Serve's messages about an application and its deployments."""
    if said is None:
        return ""
    return "; ".join(
        filter(None, [said.message, *(deployment.message for deployment in said.deployments.values())])
    )


def _states(said: Any) -> dict[str, int]:
    states: dict[str, int] = {}
    for deployment in said.deployments.values() if said else ():
        for state, count in deployment.replica_states.items():
            if count:
                states[str(getattr(state, "value", state))] = count
    return states


def _others(states: Mapping[str, int]) -> str:
    others = [f"{count} {state.lower()}" for state, count in states.items() if state != RUNNING]
    return f" ({', '.join(others)})" if others else ""
