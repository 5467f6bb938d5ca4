"""How fast replicas are, how fast a queue drains, and which replica is out of line (pure)."""

import math
from collections.abc import Iterable
from statistics import median

# A call and a step of an engine cost about as much as this many tokens before their first.
TOKENS_OF_A_CALL = 256
# Weight of the newest batch.
NEWEST = 0.2
# A replica is judged once it has done this many batches.
BATCHES_UNTIL_JUDGED = 5
# So many times slower than the others is out of line, until it is under the second figure again.
SLOW, SLOW_NO_MORE = 3.0, 2.0


class Pace:
    """How long one replica takes, by its last few batches: a fixed time and a time for each token it has.

    A batch waits for what was there before it, or shares steps with that. So its time is held against all
    the tokens that were in flight when it was sent. Held against its own alone, or shared out among the
    batches, it would depend on how many lanes are in use: a replica that is given one batch at a time
    because it was slow would look slow for ever.
    """

    __slots__ = ("_batches", "_products", "_seconds", "_squares", "_tokens", "seconds_per_token", "slow")

    def __init__(self) -> None:
        self.seconds_per_token = 0.0
        self.slow = False
        self._batches = 0
        # Means over the last batches, of which a straight line through them is made.
        self._tokens = self._seconds = self._squares = self._products = 0.0

    @property
    def known(self) -> bool:
        """Whether there were enough batches to judge by."""
        return self._batches >= BATCHES_UNTIL_JUDGED

    def observe(self, in_flight: int, seconds: float) -> None:
        """A batch took `seconds`; with its own, `in_flight` tokens were in flight when it was sent."""
        weight = NEWEST if self._batches else 1.0
        self.seconds_per_token += weight * (seconds / (in_flight + TOKENS_OF_A_CALL) - self.seconds_per_token)
        self._tokens += weight * (in_flight - self._tokens)
        self._seconds += weight * (seconds - self._seconds)
        self._squares += weight * (in_flight * in_flight - self._squares)
        self._products += weight * (in_flight * seconds - self._products)
        self._batches += 1

    def seconds(self, tokens: int) -> float:
        """About how long `tokens` take; 0 while nothing is known."""
        return self.seconds_per_token * (tokens + TOKENS_OF_A_CALL)

    def tokens_until_twice(self) -> float:
        """How many tokens make a batch take twice as long as an empty one would; inf while that is not known.

        Every call and every step of an engine takes a time that does not depend on what is in it: about 3 ms
        for a tiny model on a CPU, 10 to 20 for the real one on a GPU. Up to that time tokens are nearly free.
        """
        spread = self._squares - self._tokens**2
        slope = (self._products - self._tokens * self._seconds) / spread if spread > 0 else 0.0
        if slope <= 0:
            return math.inf
        return max(0.0, self._seconds / slope - self._tokens)

    def compare(self, others: Iterable["Pace"]) -> bool:
        """Judge it by `others`: sets `slow`, and says whether that has changed."""
        known = [other.seconds_per_token for other in others if other.known]
        limit = SLOW_NO_MORE if self.slow else SLOW
        slow = self.known and bool(known) and self.seconds_per_token > limit * median(known)
        changed = slow != self.slow
        self.slow = slow
        return changed


class DrainRate:
    """Tokens a second that leave a queue done, over the last few seconds in which something waited.

    Time in which nothing waited says how much was asked for, not how much can be done.
    """

    SECONDS = 5.0
    # Less time than this, or fewer items, is too little to tell: the first item of a burst may have waited
    # for the burst to be read.
    SHORTEST = 0.25
    FEWEST = 8

    def __init__(self) -> None:
        self._items = 0
        self._tokens = 0.0
        self._busy = 0.0
        self._then = 0.0
        self._waiting = False

    def observe(self, tokens: int, now: float, waiting: bool) -> None:
        """An item of `tokens` was done, or none; `waiting` says whether more wait from now on."""
        if self._waiting:
            self._tokens, self._busy = self._decayed(now)
            self._tokens += tokens
            self._items += tokens > 0
        self._then, self._waiting = now, waiting

    def per_second(self, now: float) -> float | None:
        """The rate, None while it is not known; a silence with work waiting counts."""
        tokens, busy = self._decayed(now) if self._waiting else (self._tokens, self._busy)
        known = self._items >= self.FEWEST and busy >= self.SHORTEST
        return tokens / busy if tokens and known else None

    def _decayed(self, now: float) -> tuple[float, float]:
        decay = math.exp((self._then - now) / self.SECONDS)
        return self._tokens * decay, self._busy * decay + self.SECONDS * (1 - decay)
