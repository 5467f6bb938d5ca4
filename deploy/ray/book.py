"""Who serves where, as replicas and routers say it themselves: leases, and what each router has seen (pure).

Nothing here is kept anywhere else. Everybody says again every two seconds what they are, so a book that was
lost is full again after one lease; until then it names nobody rather than only some.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deploy.ray.pressure import AVERAGED_SECONDS, Flow, Pressure
from router.pool.targets import document_of
from workers.shared.contract import PoolName

# Whoever has said nothing for this long is gone.
LEASE_SECONDS = 10.0
# A new book names nobody for this long, and no pressure: everybody has been heard by then, more than once.
LEARNING_SECONDS = 2 * AVERAGED_SECONDS

Groups = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that serves: `address` is what routers call, `version` tells an upgrade's old from its new."""

    id: str
    pool: PoolName
    address: str
    node: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What one router knows: all workers it has heard of, those it gives work to, each pool's pressure."""

    id: str
    node: str
    url: str
    known: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()
    pressures: Mapping[PoolName, Pressure] = field(default_factory=dict)
    arrived: Mapping[PoolName, float] = field(default_factory=dict)
    """Tokens that ever came for each pool; without a flow in `pressures`, which the book makes of these."""


class Overview(NamedTuple):
    """All that is known at a moment."""

    members: list[Member]
    routers: list[RouterReport]
    pressures: dict[PoolName, Pressure]


class Book:
    """Leases of workers and routers; every time is passed in, in seconds of any one clock."""

    def __init__(self, now: float) -> None:
        self._born = now
        self._members: dict[str, Member] = {}
        self._heard: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._routers: dict[str, RouterReport] = {}
        self._reported: dict[str, float] = {}
        self._flows: defaultdict[PoolName, Flow] = defaultdict(Flow)

    def beat(self, member: Member, now: float) -> None:
        """`member` serves; what has left does not come back by a beat that was under way."""
        if member.id not in self._left:
            self._members[member.id] = member
            self._heard[member.id] = now

    def leave(self, id: str, now: float) -> None:
        """A worker is about to stop: no router shall use it any more."""
        self._left[id] = now
        self._members.pop(id, None)
        self._heard.pop(id, None)

    def report(self, report: RouterReport, now: float) -> None:
        """What a router says of itself."""
        if (before := self._routers.get(report.id)) is not None:
            for pool, tokens in report.arrived.items():
                self._flows[pool].observe(max(0.0, tokens - before.arrived.get(pool, 0.0)), now)
        self._routers[report.id] = report
        self._reported[report.id] = now

    def forget_router(self, id: str) -> None:
        """A router is about to stop; nobody waits for it any more."""
        self._routers.pop(id, None)
        self._reported.pop(id, None)

    def members(self, now: float) -> list[Member]:
        """The workers that serve."""
        self._expire(now)
        return sorted(self._members.values(), key=lambda member: (member.pool, member.address))

    def routers(self, now: float) -> list[RouterReport]:
        """The routers that are there."""
        self._expire(now)
        return sorted(self._routers.values(), key=lambda report: report.url)

    def document(self, now: float) -> Groups | None:
        """The workers in the form of Prometheus' `http_sd`; None while they are not all known yet."""
        if now - self._born < LEARNING_SECONDS:
            return None
        return document_of((member.pool, member.version, member.address) for member in self.members(now))

    def pressure(self, pool: PoolName, now: float) -> Pressure | None:
        """What all routers have for a pool; None while that is not known, or no router says anything."""
        routers = self.routers(now)
        if not routers or now - self._born < LEARNING_SECONDS:
            return None
        flow = Pressure(tokens_per_second=self._flows[pool].per_second(now))
        return sum((report.pressures.get(pool, Pressure()) for report in routers), flow)

    def served_by_all(self, address: str, now: float) -> bool:
        """Whether each router gives work to the worker at `address`."""
        return all(address in report.serving for report in self.routers(now))

    def known_by_none(self, address: str, now: float) -> bool:
        """Whether no router has anything to do with the worker at `address` any more."""
        return not any(address in report.known for report in self.routers(now))

    def _expire(self, now: float) -> None:
        for id in [id for id, heard in self._heard.items() if now - heard > LEASE_SECONDS]:
            del self._members[id], self._heard[id]
        for id in [id for id, left in self._left.items() if now - left > 6 * LEASE_SECONDS]:
            del self._left[id]
        for id in [id for id, heard in self._reported.items() if now - heard > LEASE_SECONDS]:
            del self._routers[id], self._reported[id]
