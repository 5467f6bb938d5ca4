"""Measured speeds: of a replica, against others, and of a queue (pure)."""

import math
from collections.abc import Iterable
from statistics import median

# Fixed cost of a call and an engine step, in tokens.
TOKENS_OF_A_CALL = 256
# Weight of the newest batch.
NEWEST = 0.2
# A replica is compared with others after this many batches.
BATCHES_UNTIL_JUDGED = 5
# Slow: this many times slower than the median of the others; no longer slow: below the second factor.
SLOW, SLOW_NO_MORE = 3.0, 2.0


class Pace:
    """Pace of one replica over its last few batches: a fixed time, and a time per token in flight.

    A batch waits for earlier ones or shares engine steps with them. So its time counts for all tokens that
    were in flight when it was sent. If it counted for its own tokens only, the pace would depend on the lanes
    in use, and a replica that gets one batch at a time because it was slow would look slow forever.
    """

    __slots__ = ("_batches", "_products", "_seconds", "_squares", "_tokens", "seconds_per_token", "slow")

    def __init__(self) -> None:
        self.seconds_per_token = 0.0
        self.slow = False
        self._batches = 0
        # Means over the last batches, for a straight line through them.
        self._tokens = self._seconds = self._squares = self._products = 0.0

    @property
    def known(self) -> bool:
        """Whether there were enough batches to compare."""
        return self._batches >= BATCHES_UNTIL_JUDGED

    def observe(self, in_flight: int, seconds: float) -> None:
        """A batch took `seconds`; `in_flight` tokens, its own included, were in flight when it was sent."""
        weight = NEWEST if self._batches else 1.0
        self.seconds_per_token += weight * (seconds / (in_flight + TOKENS_OF_A_CALL) - self.seconds_per_token)
        self._tokens += weight * (in_flight - self._tokens)
        self._seconds += weight * (seconds - self._seconds)
        self._squares += weight * (in_flight * in_flight - self._squares)
        self._products += weight * (in_flight * seconds - self._products)
        self._batches += 1

    def seconds(self, tokens: int) -> float:
        """Estimated time for `tokens`; 0 while unknown."""
        return self.seconds_per_token * (tokens + TOKENS_OF_A_CALL)

    def tokens_until_twice(self) -> float:
        """Tokens with which a batch takes twice as long as an empty one; inf while unknown.

        Every call and engine step has a fixed time: about 3 ms for a tiny model on a CPU, 10 to 20 ms for the
        real one on a GPU. Up to that, tokens are nearly free.
        """
        spread = self._squares - self._tokens**2
        slope = (self._products - self._tokens * self._seconds) / spread if spread > 0 else 0.0
        if slope <= 0:
            return math.inf
        return max(0.0, self._seconds / slope - self._tokens)

    def compare(self, others: Iterable["Pace"]) -> bool:
        """Compare with `others` and set `slow`; returns whether it has changed."""
        known = [other.seconds_per_token for other in others if other.known]
        limit = SLOW_NO_MORE if self.slow else SLOW
        slow = self.known and bool(known) and self.seconds_per_token > limit * median(known)
        changed = slow != self.slow
        self.slow = slow
        return changed


class DrainRate:
    """Rate at which a queue drains, in tokens a second, over the last few seconds in which items waited.

    Time in which nothing waits shows the demand, not the capacity. Where items take long, the rate is over
    more time: a text of 15 s is no progress at first, and then much at once.
    """

    SECONDS = 5.0
    # At least as long as so many of the longest items.
    ITEMS = 4
    # With less time or fewer items the rate is unknown: the first item of a burst may have waited for the
    # burst to be read.
    SHORTEST = 0.25
    FEWEST = 8

    def __init__(self) -> None:
        self._items = 0
        self._tokens = 0.0
        self._busy = 0.0
        self._then = 0.0
        self._waiting = False
        self._seconds = self.SECONDS

    def observe(self, tokens: int, now: float, waiting: bool, took: float = 0.0) -> None:
        """An item of `tokens` is done (0 if no item is), `took` seconds after it left the queue.

        `waiting`: whether items wait from now on.
        """
        if self._waiting:
            decay, self._tokens, self._busy = self._decayed(now)
            self._seconds = max(self.SECONDS, self.ITEMS * took, self._seconds * decay)
            if took > max(self._busy, self.SECONDS):
                # The time in which the item began is forgotten. The others were as fast then.
                self._tokens *= took / max(self._busy, self.SHORTEST)
                self._busy = took
            self._tokens += tokens
            self._items += tokens > 0
        self._then, self._waiting = now, waiting

    def per_second(self, now: float) -> float | None:
        """The rate, None while unknown; time without progress counts while items wait."""
        tokens, busy = self._tokens, self._busy
        if self._waiting:
            _, tokens, busy = self._decayed(now)
        known = self._items >= self.FEWEST and busy >= self.SHORTEST
        return tokens / busy if tokens and known else None

    def _decayed(self, now: float) -> tuple[float, float, float]:
        """The share that is left of the last observation, and what is left of its tokens and busy time."""
        decay = math.exp((self._then - now) / self._seconds)
        return decay, self._tokens * decay, self._busy * decay + self._seconds * (1 - decay)
