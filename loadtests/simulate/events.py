"""What happens when: simulated time, which goes from one event to the next."""

import heapq
import math
from collections.abc import Callable


class Events:
    """Actions in the order of their times, in seconds; those of one time in the order they were given."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []

    def at(self, when: float, action: Callable[..., object], *args: object) -> None:
        """Call `action` at `when`. Raises `ValueError` for the past."""
        if when < self.now:
            raise ValueError(f"{when} s is over: it is {self.now} s")
        self.count += 1
        heapq.heappush(self._heap, (when, self.count, action, args))

    def run(self, until: float = math.inf) -> None:
        """Let time pass until nothing is left to happen by `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, args = heapq.heappop(heap)
            action(*args)
        if until < math.inf:
            self.now = until
