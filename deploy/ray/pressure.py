"""How much a pool has to do, and how many replicas that asks for (pure)."""

import math
from dataclasses import dataclass

# The flow of tokens is that of about so many seconds, so that one large request is no reason to scale.
AVERAGED_SECONDS = 5.0
# Less than this many tokens a second is nothing: a mean of what once was never becomes none.
SMALLEST_FLOW = 0.1


@dataclass(frozen=True, slots=True)
class Pressure:
    """What one pool has to do, in one router or in all of them, in estimated tokens."""

    waiting_tokens: float = 0.0
    running_tokens: float = 0.0
    tokens_per_second: float = 0.0
    """Tokens that have come lately, whatever became of them since."""

    def __add__(self, other: "Pressure") -> "Pressure":
        return Pressure(
            self.waiting_tokens + other.waiting_tokens,
            self.running_tokens + other.running_tokens,
            self.tokens_per_second + other.tokens_per_second,
        )

    def demand(self, backlog_seconds: float) -> float:
        """Tokens a second that have to be done: those that come, and what waits within `backlog_seconds`.

        Not the tokens that wait and run: a replica at a third of its capacity holds a tenth of what one at
        nine tenths does, and while replicas start, what waits says how long they take rather than how many
        are needed. Scaling by those swings between too few and the most (docs/SCALE.md).
        """
        flow = self.tokens_per_second + self.waiting_tokens / backlog_seconds
        return flow if flow >= SMALLEST_FLOW else 0.0


def replicas_for(demand: float, tokens_per_second: float, utilization: float) -> float:
    """How many replicas, each doing so much at full load, `demand` keeps busy for a part `utilization`."""
    return demand / (tokens_per_second * utilization)


class FromNone:
    """What is asked for while no replica runs, when Serve knows no delay but does at once what it is told.

    One as soon as there is work, and never fewer than are being started: a start that is broken off because
    the load fell for a moment begins again with the next request. More than those only after `up_seconds`,
    as Serve has it where replicas run.
    """

    def __init__(self) -> None:
        self._more_since = math.inf

    def decide(self, wanted: float, target: int, running: int, up_seconds: float, now: float) -> float:
        """What to tell Serve, when `wanted` would do what there is to do, and so far it is `target`."""
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
    """Tokens a second over the last few seconds, in which what is longer ago weighs less."""

    def __init__(self, seconds: float = AVERAGED_SECONDS) -> None:
        self._seconds = seconds
        self._tokens = 0.0
        self._then = 0.0

    def observe(self, tokens: float, now: float) -> None:
        """`tokens` have come by `now`."""
        self._tokens = self._decayed(now) + tokens
        self._then = now

    def per_second(self, now: float) -> float:
        """The rate by `now`."""
        return self._decayed(now) / self._seconds

    def _decayed(self, now: float) -> float:
        return self._tokens * math.exp(min(0.0, (self._then - now) / self._seconds))
