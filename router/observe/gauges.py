"""Gauges that are read off the fleet: queue depth, work in flight, the state of each replica.

They are set when `/metrics` is read. In multi-process mode each process also sets its own every second, in
the shared folder, and prometheus-client adds them up. Their parent calls `mark_process_dead` when one ends,
which removes its gauges.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from triptych.router.items import Priority
from triptych.router.memory import Budget
from triptych.router.observe.metrics import SHARED_FOLDER
from triptych.router.pool.breaker import BreakerState
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.replica import State
from triptych.router.serving.connections import Connections
from triptych.workers.shared import logs

log = logging.getLogger(__name__)

SET_SECONDS = 1.0

_POOL = ("pool", "class")
_REPLICA = ("pool", "replica")

# Labels and description of each metric, whose name begins with triptych_router_.
_GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "processes": ((), "Router processes that are added up here."),
    "resident_memory_bytes": ((), "Memory of the router processes; shared pages count for each."),
    "requests_in_flight": ((), "Requests without a reply."),
    "dropped_log_lines": ((), "Log lines that were dropped because the pipe was full."),
    "connections": ((), "Open connections of clients."),
    "connections_waiting": ((), "Open connections whose requests wait to be read."),
    "reserved_memory_bytes": ((), "Memory that requests hold, estimated: bodies, media, items, replies."),
    "memory_budget_bytes": ((), "Most memory that requests may hold together."),
    "pool_ready": (
        ("pool",),
        "Router processes in which the pool is ready, as /ready says, or not used by any task.",
    ),
    "queue_items": (_POOL, "Items waiting."),
    "queue_tokens": (_POOL, "Tokens waiting, estimated."),
    "replica_batches_in_flight": (_REPLICA, "Batches, each in a lane, that a replica has."),
    "replica_tokens_in_flight": (_REPLICA, "Tokens, estimated, of the batches that a replica has."),
    "replica_lanes": (_REPLICA, "Most batches that a replica has at a time."),
    "replica_state": ((*_REPLICA, "state"), "Router processes that see the replica in this state."),
    "replica_breaker": (
        (*_REPLICA, "state"),
        "Router processes whose circuit breaker for the replica is in this state.",
    ),
    "replica_slow": (_REPLICA, "Router processes that find the replica far slower than others of its pool."),
}


def read(
    fleet: Fleet, budget: Budget, connections: Connections, requests: int
) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Name, label values and value of each gauge at this moment."""
    yield "processes", (), 1
    yield "resident_memory_bytes", (), _resident_bytes()
    yield "requests_in_flight", (), requests
    yield "dropped_log_lines", (), logs.dropped_lines
    yield "connections", (), connections.number
    yield "connections_waiting", (), connections.turns.waiting
    yield "reserved_memory_bytes", (), budget.used
    yield "memory_budget_bytes", (), budget.limit
    for name, pool in fleet.pools.items():
        yield "pool_ready", (name,), pool not in fleet.in_use or pool.is_ready()
        for priority in Priority:
            items, tokens = pool.queue.depth(priority)
            yield "queue_items", (name, priority.label), items
            yield "queue_tokens", (name, priority.label), tokens
        for replica in pool.replicas:
            labels = (name, replica.address)
            yield "replica_batches_in_flight", labels, replica.lanes_in_use
            yield "replica_tokens_in_flight", labels, replica.tokens_in_flight
            yield "replica_lanes", labels, replica.lanes
            for state in State:
                yield "replica_state", (*labels, state.value), replica.state is state
            breaker = replica.breaker.state(fleet.clock())
            for side in BreakerState:
                yield "replica_breaker", (*labels, side.value), breaker is side
            yield "replica_slow", labels, replica.pace.slow


def make_gauges(registry: CollectorRegistry) -> dict[str, Gauge]:
    """The gauges by their names without triptych_router_."""
    return {
        name: Gauge(f"triptych_router_{name}", text, labels, registry=registry, multiprocess_mode="livesum")
        for name, (labels, text) in _GAUGES.items()
    }


class Gauges:
    """The gauges of one application, and the page of all its metrics."""

    def __init__(self, fleet: Fleet, budget: Budget, connections: Connections) -> None:
        self.requests = 0
        self._budget = budget
        self._connections = connections
        self._fleet = fleet
        self._gauges = make_gauges(fleet.metrics.registry)
        self._folder = os.environ.get(SHARED_FOLDER)

    async def page(self) -> bytes:
        """All metrics, of all processes that share a folder. The request for the page is not in flight."""
        self._set(self.requests - 1)
        current: set[tuple[str | None, str | None]] = {(None, None)}
        for name, pool in self._fleet.pools.items():
            current |= {(name, None), *((name, replica.address) for replica in pool.replicas)}
        counted: Collector = (
            MultiProcessCollector(None, self._folder)  # type: ignore[no-untyped-call]
            if self._folder
            else self._fleet.metrics.registry
        )
        # It takes milliseconds, and reads files where there is a folder.
        return await asyncio.to_thread(generate_latest, _Current(counted, current))

    def _set(self, requests: int) -> None:
        for name, labels, value in read(self._fleet, self._budget, self._connections, requests):
            gauge = self._gauges[name]
            (gauge.labels(*labels) if labels else gauge).set(value)

    async def keep_set(self) -> None:
        """Set them again and again, if processes share a folder."""
        failed = False
        while self._folder:
            try:
                self._set(self.requests)
                failed = False
            except Exception:
                if not failed:
                    log.exception("cannot set the gauges; trying again every %g s", SET_SECONDS)
                failed = True
            await asyncio.sleep(SET_SECONDS)


class _Current(Collector):
    """Metrics without the gauges of pools and replicas that have left.

    prometheus-client cannot remove series in multi-process mode.
    """

    def __init__(self, counted: Collector, current: set[tuple[str | None, str | None]]) -> None:
        self._counted = counted
        self._current = current

    def collect(self) -> Iterator[Metric]:
        for metric in self._counted.collect():
            if metric.type == "gauge":
                metric.samples = [
                    sample
                    for sample in metric.samples
                    if (sample.labels.get("pool"), sample.labels.get("replica")) in self._current
                ]
            yield metric


def _resident_bytes() -> int:
    """Of this process; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
