"""What is read off a running router when it is asked: how much waits, is in flight, and in which state.

Several routers on one port each write theirs into the folder that they share, every second; whoever is
asked adds them up. What a router that has died wrote is left out.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.observe.metrics import SHARED_FOLDER, class_of
from router.pool.breaker import BreakerState
from router.pool.fleet import Fleet
from router.pool.replica import State

WRITE_SECONDS = 1.0

Snapshot = dict[tuple[str, ...], float]
"""Values by metric and labels. All of them can be added up over routers."""

# Each metric's labels, and what it says.
GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "triptych_router_processes": ((), "Router processes that these numbers are of."),
    "triptych_router_resident_memory_bytes": (
        (),
        "Memory that the router processes have; what they share counts for each.",
    ),
    "triptych_router_requests_in_flight": ((), "Requests that have no reply yet."),
    "triptych_router_queue_items": (("pool", "class"), "Items waiting."),
    "triptych_router_queue_tokens": (("pool", "class"), "Tokens waiting, estimated."),
    "triptych_router_replica_batches_in_flight": (
        ("pool", "replica"),
        "Batches, each in a lane, that a replica has.",
    ),
    "triptych_router_replica_tokens_in_flight": (
        ("pool", "replica"),
        "Tokens, estimated, of the batches that a replica has.",
    ),
    "triptych_router_replica_lanes": (("pool", "replica"), "Batches that a replica is given at a time."),
    "triptych_router_replica_state": (
        ("pool", "replica", "state"),
        "Router processes that see the replica in this state.",
    ),
    "triptych_router_replica_breaker": (
        ("pool", "replica", "state"),
        "Router processes whose circuit breaker for the replica is in this state.",
    ),
    "triptych_router_replica_slow": (
        ("pool", "replica"),
        "Router processes to which the replica is far slower than the others of its pool.",
    ),
}


def read(fleet: Fleet, requests: int) -> Snapshot:
    """The gauges of this moment."""
    values: Snapshot = {
        ("triptych_router_processes",): 1,
        ("triptych_router_resident_memory_bytes",): _resident_bytes(),
        ("triptych_router_requests_in_flight",): requests,
    }
    for name, pool in fleet.pools.items():
        for bulk in (False, True):
            items, tokens = pool.queue.depth(bulk=bulk)
            values["triptych_router_queue_items", name, class_of(bulk=bulk)] = items
            values["triptych_router_queue_tokens", name, class_of(bulk=bulk)] = tokens
        for replica in pool.replicas:
            its = (name, replica.address)
            values["triptych_router_replica_batches_in_flight", *its] = replica.lanes_in_use
            values["triptych_router_replica_tokens_in_flight", *its] = replica.tokens_in_flight
            values["triptych_router_replica_lanes", *its] = replica.lanes
            for state in State:
                values["triptych_router_replica_state", *its, state.value] = int(replica.state is state)
            breaker = replica.breaker.state(fleet.clock())
            for side in BreakerState:
                values["triptych_router_replica_breaker", *its, side.value] = int(breaker is side)
            values["triptych_router_replica_slow", *its] = int(replica.pace.slow)
    return values


def _resident_bytes() -> int:
    """Of this process; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Gauges(Collector):
    """Snapshots, added up, as Prometheus reads them."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._values: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for snapshot in snapshots:
            for key, value in snapshot.items():
                self._values[key] += value

    def collect(self) -> Iterator[Metric]:
        families = {
            name: GaugeMetricFamily(name, said, labels=labels) for name, (labels, said) in GAUGES.items()
        }
        for (name, *labels), value in self._values.items():
            families[name].add_metric(labels, value)
        yield from families.values()


class SharedGauges:
    """This router's part in the folder that routers on one port share; nothing where it is alone."""

    def __init__(self, fleet: Fleet) -> None:
        folder = os.environ.get(SHARED_FOLDER)
        self._folder = Path(folder) if folder else None
        self._fleet = fleet
        self._writing: asyncio.Task[None] | None = None
        self.requests = 0

    async def __aenter__(self) -> "SharedGauges":
        if self._folder is not None:
            self._writing = asyncio.create_task(self._keep_written(self._folder))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writing is not None and self._folder is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            _file(self._folder, os.getpid()).unlink(missing_ok=True)

    def own(self, *, asking: int = 0) -> Snapshot:
        """This router's; requests that are `asking` for it are not counted."""
        return read(self._fleet, self.requests - asking)

    def others(self) -> list[Snapshot]:
        """Those of the other routers that live; reads files, so it is for a thread."""
        found: list[Snapshot] = []
        for path in self._folder.glob("gauges-*.msgpack") if self._folder else ():
            pid = int(path.stem.removeprefix("gauges-"))
            if pid == os.getpid():
                continue
            with suppress(FileNotFoundError):
                if _lives(pid):
                    found.append(_decode(path.read_bytes()))
                else:
                    path.unlink()
        return found

    async def _keep_written(self, folder: Path) -> None:
        path = _file(folder, os.getpid())
        while True:
            await asyncio.to_thread(_write, path, self.own())
            await asyncio.sleep(WRITE_SECONDS)


_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[tuple[tuple[str, ...], float]]).decode


def _decode(data: bytes) -> Snapshot:
    return dict(_decode_rows(data))


def _write(path: Path, snapshot: Snapshot) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(_encode(list(snapshot.items())))
    part.replace(path)


def _file(folder: Path, pid: int) -> Path:
    return folder / f"gauges-{pid}.msgpack"


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
