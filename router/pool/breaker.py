"""Whether a replica that failed may be tried again (pure: times are passed in).

Only failures count. A replica that is overloaded or stopping has said so itself, and is dealt with by a
pause or by its state: counting these would take away capacity exactly when there is too little.
"""

from enum import Enum

# Failures in a row after which a replica is left alone.
FAILURES_UNTIL_OPEN = 3
# For how long, at first; twice as long each time that the trial at the end of it fails.
OPEN_SECONDS = 0.5
LONGEST_OPEN_SECONDS = 15.0


class BreakerState(Enum):
    """CLOSED lets work through, OPEN none, HALF_OPEN one batch whose end decides."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    """The breaker of one replica."""

    def __init__(self) -> None:
        self.failures = 0
        self._failed_at = float("-inf")
        self._open_seconds = 0.0

    def state(self, now: float) -> BreakerState:
        """What it lets through at `now`."""
        if self.failures < FAILURES_UNTIL_OPEN:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.open_until else BreakerState.HALF_OPEN

    @property
    def open_until(self) -> float:
        """When the next trial is due; in the past for a breaker that is not open."""
        return self._failed_at + self._open_seconds

    def succeeded(self) -> None:
        """A batch was done."""
        self.failures = 0
        self._open_seconds = 0.0

    def failed(self, started: float, now: float) -> None:
        """A batch that was sent at `started` has failed.

        Batches that were in flight together fail together: one incident, which counts once.
        """
        if started < self._failed_at:
            return
        self._failed_at = now
        self.failures += 1
        if self.failures >= FAILURES_UNTIL_OPEN:
            self._open_seconds = min(max(2 * self._open_seconds, OPEN_SECONDS), LONGEST_OPEN_SECONDS)
