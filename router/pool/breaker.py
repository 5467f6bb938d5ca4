"""Circuit breaker: whether a replica that failed may be tried again (pure: times are arguments).

Only failures count. Overloaded and stopping replicas are paused or drained instead: if they counted, capacity
would be lost exactly when there is too little.
"""

from enum import Enum

# Failures in a row that open the breaker.
FAILURES_UNTIL_OPEN = 3
# It stays open so long at first, and twice as long after each trial that fails.
OPEN_SECONDS = 0.5
LONGEST_OPEN_SECONDS = 15.0


class BreakerState(Enum):
    """CLOSED lets all batches through, OPEN no batch, HALF_OPEN one, whose outcome decides."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    def __init__(self) -> None:
        self.failures = 0
        self._failed_at = float("-inf")
        self._open_seconds = 0.0

    def state(self, now: float) -> BreakerState:
        if self.failures < FAILURES_UNTIL_OPEN:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.open_until else BreakerState.HALF_OPEN

    @property
    def open_until(self) -> float:
        """When the next trial is due; in the past unless it is open."""
        return self._failed_at + self._open_seconds

    def succeeded(self) -> None:
        self.failures = 0
        self._open_seconds = 0.0

    def failed(self, started: float, now: float) -> None:
        """A batch that was sent at `started` has failed. Batches in flight together count as one failure."""
        if started < self._failed_at:
            return
        self._failed_at = now
        self.failures += 1
        if self.failures >= FAILURES_UNTIL_OPEN:
            self._open_seconds = min(max(2 * self._open_seconds, OPEN_SECONDS), LONGEST_OPEN_SECONDS)
