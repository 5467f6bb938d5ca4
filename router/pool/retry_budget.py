"""Retry budget of a pool: bounds retries, so that failures do not become a storm (pure)."""

SHARE_OF_TRAFFIC = 0.2
FLOOR_PER_SECOND = 1.0
SMALLEST_CAPACITY = 10


class RetryBudget:
    """A bucket that each batch fills by a share and each failed batch empties by one.

    It holds at least `lanes`, so that every batch in flight can be tried again after a worker has died. It
    also fills slowly with time, so that a quiet pool recovers.
    """

    def __init__(self, lanes: int, now: float) -> None:
        self._capacity = float(max(lanes, SMALLEST_CAPACITY))
        self._left = self._capacity
        self._then = now

    def resize(self, lanes: int) -> None:
        """Hold at least `lanes` from now on; what is left grows or shrinks by the difference."""
        capacity = float(max(lanes, SMALLEST_CAPACITY))
        self._left = max(0.0, self._left + capacity - self._capacity)
        self._capacity = capacity

    def earn(self) -> None:
        """A batch has been sent."""
        self._left = min(self._capacity, self._left + SHARE_OF_TRAFFIC)

    def spend(self, now: float) -> bool:
        """Pay for the retry of a failed batch. Returns False if too little is left."""
        self._left = min(self._capacity, self._left + (now - self._then) * FLOOR_PER_SECOND)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
