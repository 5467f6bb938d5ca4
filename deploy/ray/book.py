"""Which workers and routers serve, by the leases that they renew (pure).

It is kept in memory only. Workers and routers renew every two seconds, so a new book is complete after one
lease. Until then it names no worker, because routers would take an incomplete list for a complete one.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from triptych.deploy.ray.pressure import AVERAGED_SECONDS, Flow, Pressure
from triptych.router.pool.targets import document_of
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL

# A lease ends after this long without renewal.
LEASE_SECONDS = 10.0
# A new book gives no document and no pressure for this long. Each has renewed more than once by then.
LEARNING_SECONDS = 2 * AVERAGED_SECONDS

Groups = list[dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that serves. Routers call `address`; `version` differs between old and new in an upgrade."""

    id: str
    pool: PoolName
    address: str
    node: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What one router reports: the workers it knows, those it sends work to, and the load of each pool."""

    id: str
    url: str
    known: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()
    pressures: Mapping[PoolName, Pressure] = field(default_factory=dict)
    """Waiting and running tokens; the book adds the rate, from `arrived`."""
    arrived: Mapping[PoolName, float] = field(default_factory=dict)
    """All tokens that ever arrived for each pool."""


class Overview(NamedTuple):
    """Everything that is known at one moment."""

    members: list[Member]
    routers: list[RouterReport]
    pressures: dict[PoolName, Pressure]


class Book:
    """Leases of workers and routers. Times are arguments, in seconds of any one clock."""

    def __init__(self, now: float) -> None:
        self._born = now
        self._members: dict[str, tuple[Member, float]] = {}
        self._routers: dict[str, tuple[RouterReport, float]] = {}
        self._flows: defaultdict[PoolName, Flow] = defaultdict(Flow)

    def beat(self, member: Member, now: float) -> None:
        """A worker renews its lease."""
        self._members[member.id] = member, now

    def leave(self, id: str, now: float) -> None:
        """Forget a worker or a router that is about to stop."""
        self._members.pop(id, None)
        self._routers.pop(id, None)

    def report(self, report: RouterReport, now: float) -> Groups | None:
        """A router renews its lease with a report; returns the document for it."""
        if (last := self._routers.get(report.id)) is not None:
            before = last[0].arrived
            for pool, tokens in report.arrived.items():
                self._flows[pool].observe(max(0.0, tokens - before.get(pool, 0.0)), now)
        self._routers[report.id] = report, now
        return self.document(now)

    def members(self, now: float) -> list[Member]:
        return sorted(_alive(self._members, now), key=lambda member: (member.pool, member.address))

    def routers(self, now: float) -> list[RouterReport]:
        """The last report of each router that serves."""
        return sorted(_alive(self._routers, now), key=lambda report: report.url)

    def document(self, now: float) -> Groups | None:
        """The workers in the format of Prometheus' `http_sd`, None while the book is incomplete."""
        if now - self._born < LEARNING_SECONDS:
            return None
        return document_of((member.pool, member.version, member.address) for member in self.members(now))

    def pressure(self, pool: PoolName, now: float) -> Pressure | None:
        """The load of a pool in all routers, None while it is unknown or without routers."""
        routers = self.routers(now)
        if not routers or now - self._born < LEARNING_SECONDS:
            return None
        flow = Pressure(tokens_per_second=self._flows[pool].per_second(now))
        return sum((report.pressures.get(pool, Pressure()) for report in routers), flow)

    def overview(self, now: float) -> Overview:
        pressures = {pool: self.pressure(pool, now) for pool in BY_POOL}
        known = {pool: pressure for pool, pressure in pressures.items() if pressure is not None}
        return Overview(self.members(now), self.routers(now), known)

    def served_by_all(self, address: str, now: float) -> bool:
        """Whether every router sends work to the worker at `address`."""
        return all(address in report.serving for report in self.routers(now))

    def known_by_none(self, address: str, now: float) -> bool:
        """Whether no router knows the worker at `address`."""
        return not any(address in report.known for report in self.routers(now))


def _alive(leases: dict[str, tuple[T, float]], now: float) -> list[T]:
    """The owners of leases that have not ended; the others are forgotten."""
    for id in [id for id, (_, renewed) in leases.items() if now - renewed > LEASE_SECONDS]:
        del leases[id]
    return [owner for owner, _ in leases.values()]
