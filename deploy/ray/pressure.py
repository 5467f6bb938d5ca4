"""The load of a pool, and how many replicas it needs (pure)."""

import math
from dataclasses import dataclass

# The rate of tokens is averaged over about this time, so that one large request does not scale a pool.
AVERAGED_SECONDS = 5.0
# A lower rate counts as zero: an exponential average never reaches zero.
SMALLEST_FLOW = 0.1


@dataclass(frozen=True, slots=True)
class Pressure:
    """The load of one pool, in one router or in all of them, in estimated tokens."""

    waiting_tokens: float = 0.0
    running_tokens: float = 0.0
    tokens_per_second: float = 0.0
    """Rate of the tokens that arrived lately, whether they are done or not."""

    def __add__(self, other: "Pressure") -> "Pressure":
        return Pressure(
            self.waiting_tokens + other.waiting_tokens,
            self.running_tokens + other.running_tokens,
            self.tokens_per_second + other.tokens_per_second,
        )

    def demand(self, backlog_seconds: float) -> float:
        """The needed rate in tokens per second: those that arrive, and the waiting ones in `backlog_seconds`.

        It does not use the number of tokens that wait and run. That number does not grow linearly with load,
        and while replicas start it grows with the time they take, so scaling would swing (docs/SCALE.md).
        """
        flow = self.tokens_per_second + self.waiting_tokens / backlog_seconds
        return flow if flow >= SMALLEST_FLOW else 0.0


class FromZero:
    """Scaling up from zero replicas, for which Serve applies no delay of its own.

    It asks for one replica as soon as there is work, and never for fewer than are starting, because a start
    that is cancelled begins again with the next request. It asks for more once the load has needed them for
    `up_seconds`.
    """

    def __init__(self) -> None:
        self._more_since = math.inf

    def decide(self, wanted: float, target: int, running: int, up_seconds: float, now: float) -> float:
        """The number for Serve, if the load needs `wanted` and the number was `target` so far."""
        least = max(target, 1 if wanted > 0 else 0)
        if running or wanted <= least:
            self._more_since = math.inf
            return wanted if running else least
        self._more_since = min(self._more_since, now)
        if now - self._more_since < up_seconds:
            return least
        self._more_since = math.inf
        return wanted


class Flow:
    """Exponential average of tokens per second."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._then = 0.0

    def observe(self, tokens: float, now: float) -> None:
        """`tokens` have arrived by `now`."""
        self._tokens = self._decayed(now) + tokens
        self._then = now

    def per_second(self, now: float) -> float:
        """The rate at `now`."""
        return self._decayed(now) / AVERAGED_SECONDS

    def _decayed(self, now: float) -> float:
        return self._tokens * math.exp(min(0.0, (self._then - now) / AVERAGED_SECONDS))
