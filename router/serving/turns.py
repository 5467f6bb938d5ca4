"""Bounds the time that reading requests takes in one turn of the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

# Longer turns refuse more requests at once and leave less time for those accepted (docs/PERFORMANCE.md).
TURN_SECONDS = 0.005


class Reader(Protocol):
    """A connection."""

    def read(self, data: bytes) -> None:
        """Handle a piece that was received."""
        ...

    def pause(self) -> None:
        """Receive no more for now."""
        ...

    def resume(self, data: bytes) -> None:
        """Handle a piece that had to wait, if the connection is still open, and receive again."""
        ...


class Turns:
    """Lets connections read for `seconds` in a turn; pieces after that wait for the next turns, in order.

    libuv hands out everything that was received, up to 49,152 pieces, before it runs anything else. Under
    overload most of that is requests to refuse. Those accepted need several turns, in which their batches are
    sent and their vectors are returned.
    """

    def __init__(self, seconds: float = TURN_SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._clock = clock
        self._ends = 0.0
        self._waiting: deque[tuple[Reader, bytes]] = deque()

    def read(self, reader: Reader, data: bytes) -> None:
        """Let `reader` handle `data`, now or in a later turn."""
        now = self._clock()
        if not self._ends:
            self._begin(now)
        if not self._waiting and now < self._ends:
            reader.read(data)
        else:
            reader.pause()
            self._waiting.append((reader, data))

    def _begin(self, now: float) -> None:
        self._ends = now + self._seconds
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._ends = 0.0
        if not self._waiting:
            return
        self._begin(self._clock())
        while self._waiting:
            reader, data = self._waiting.popleft()
            reader.resume(data)
            # At least one piece in a turn.
            if self._clock() >= self._ends:
                break
