"""Bounds the time that reading requests takes in one turn of the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Longer turns refuse more requests at once and leave less time for those accepted (docs/PERFORMANCE.md).
TURN_SECONDS = 0.005


class Turns:
    """Lets connections read for `seconds` in a turn of the event loop; the others wait for the next turns.

    libuv hands out everything that was received, up to 49,152 pieces, before it runs anything else. Under
    overload most of that is requests to refuse. Those accepted need several turns, in which their batches are
    sent and their vectors are returned.
    """

    def __init__(self, seconds: float = TURN_SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._clock = clock
        self._ends = 0.0
        self._bodies: deque[Callable[[], None]] = deque()
        self._others: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        """Number of connections that wait for their turn."""
        return len(self._bodies) + len(self._others)

    def take(self, read: Callable[[], None], *, in_body: bool) -> bool:
        """Whether a connection may read now. If not, `read` is called in its turn.

        Those in a body, whose head was read, go first.
        """
        now = self._clock()
        if not self._ends:
            self._begin(now)
        if not self.waiting and now < self._ends:
            return True
        (self._bodies if in_body else self._others).append(read)
        return False

    def _begin(self, now: float) -> None:
        self._ends = now + self._seconds
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._ends = 0.0
        if not self.waiting:
            return
        self._begin(self._clock())
        while queue := self._bodies or self._others:
            queue.popleft()()
            # At least one in a turn.
            if self._clock() >= self._ends:
                break
