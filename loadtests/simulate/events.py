"""Simulated time: a queue of events."""

import heapq
import math
from collections.abc import Callable


class Events:
    """Calls actions in order of time (seconds). Actions of one time keep their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []

    def at(self, when: float, action: Callable[..., object], *args: object) -> None:
        """Call `action` at `when`. Raises `ValueError` for a time in the past."""
        if when < self.now:
            raise ValueError(f"{when} s is in the past: it is {self.now} s")
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, action, args))

    def run(self, until: float = math.inf) -> None:
        """Run all events up to `until`, by default until none is left."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action, args = heapq.heappop(self._heap)
            action(*args)
        if until < math.inf:
            self.now = until
