"""Open connections of one process: limits their number, and closes those on which bytes hardly move."""

import asyncio
import resource
from collections import Counter
from typing import Protocol

from triptych.router.observe.metrics import Metrics
from triptych.router.serving.turns import Turns
from triptych.router.settings import RouterSettings

CHECK_SECONDS = 1.0
# A body or a reply must move at the minimum rate on average over this time.
GRACE_SECONDS = 20.0
# Descriptors for calls to workers, files and pipes.
SPARE_SHARE = 0.1


class Connection(Protocol):
    """What is known of one connection."""

    address: str

    def progress(self) -> tuple[object, int] | None:
        """The phase of its request and the bytes that moved in it; None while no bytes have to move."""
        ...

    def abort(self) -> None: ...


class Connections:
    """The open connections of one process, and their turns to read."""

    def __init__(self, settings: RouterSettings, metrics: Metrics) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(settings.max_connections, int((1 - SPARE_SHARE) * descriptors))
        self._settings = settings
        self._closed = metrics.closed_connections
        self.turns = Turns()
        self._open: set[Connection] = set()
        self._by_client: Counter[str] = Counter()
        # The phase, the bytes moved in it when enough had moved last, and the time of that.
        self._watched: dict[Connection, tuple[object, int, float]] = {}

    @property
    def number(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Count a new connection. Returns False if there are too many, and counts it as closed."""
        self._open.add(connection)
        self._by_client[connection.address] += 1
        if len(self._open) > self._most:
            self._closed.labels("too_many").inc()
            return False
        if self._by_client[connection.address] > self._settings.max_connections_per_client:
            self._closed.labels("too_many_of_client").inc()
            return False
        return True

    def remove(self, connection: Connection) -> None:
        self._open.remove(connection)
        self._by_client[connection.address] -= 1
        if not self._by_client[connection.address]:
            del self._by_client[connection.address]

    async def watch(self) -> None:
        """Close slow connections again and again, unless there is no minimum rate."""
        while self._settings.min_bytes_per_second:
            await asyncio.sleep(CHECK_SECONDS)
            self.close_slow(asyncio.get_running_loop().time())

    def close_slow(self, now: float) -> None:
        """Close the connections on which too few bytes have moved."""
        least = self._settings.min_bytes_per_second * GRACE_SECONDS
        watched: dict[Connection, tuple[object, int, float]] = {}
        for connection in list(self._open):
            progress = connection.progress()
            if progress is None:
                continue
            phase, moved = progress
            old_phase, start, since = self._watched.get(connection, (None, 0, now))
            if phase != old_phase or moved - start >= least:
                watched[connection] = (phase, moved, now)
            elif now - since < GRACE_SECONDS:
                watched[connection] = (phase, start, since)
            else:
                self._closed.labels("too_slow").inc()
                connection.abort()
        self._watched = watched
