"""How often a pool may try again: what keeps failures from becoming a storm (pure)."""

SHARE_OF_TRAFFIC = 0.2
FLOOR_PER_SECOND = 1.0
SMALLEST_CAPACITY = 10


class RetryBudget:
    """A bucket that each batch fills by a share and each failed batch empties by one.

    It holds at least `lanes`, every batch in flight, so that all that one death costs can be tried again;
    a trickle by the clock lets a quiet pool recover.
    """

    def __init__(self, lanes: int, now: float) -> None:
        self._capacity = float(max(lanes, SMALLEST_CAPACITY))
        self._left = self._capacity
        self._then = now

    def resize(self, lanes: int) -> None:
        """There are so many lanes now; what may be spent grows and shrinks with them."""
        capacity = float(max(lanes, SMALLEST_CAPACITY))
        self._left = max(0.0, self._left + capacity - self._capacity)
        self._capacity = capacity

    def earn(self) -> None:
        """A batch has been sent."""
        self._left = min(self._capacity, self._left + SHARE_OF_TRAFFIC)

    def spend(self, now: float) -> bool:
        """Whether a failed batch may be tried again; if so it has been paid for."""
        self._left = min(self._capacity, self._left + (now - self._then) * FLOOR_PER_SECOND)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
