"""Admission: which batches a worker accepts when it is asked for more than its limit (pure)."""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

# Bounds of the wait that a refused caller is told.
SHORTEST_WAIT = 0.05
LONGEST_WAIT = 1.0
# Callers come back after this part of the expected wait: too early wastes a call, too late leaves the engine
# idle.
EARLY = 0.9
# A reservation outlasts the wait by this much, for the network and a busy router.
GRACE_SECONDS = 0.25
# How long the worker drains for an `alone` batch, and how long others are admitted after that.
ALONE_SECONDS = 1.0


class Stay(NamedTuple):
    """An accepted batch."""

    priority: int
    items: int
    since: float
    alone: bool = False


class _Reservation(NamedTuple):
    """Items of a refused caller, reserved until `until`."""

    items: int
    until: float


@dataclass
class _Class:
    """State of one priority. `reservations` are in order of each caller's first refusal."""

    items: int = 0
    reservations: dict[str, _Reservation] = field(default_factory=dict)
    # Moving average of a batch's stay.
    seconds: float = 0.0


class Admission:
    """Accepts at most `limit` items per priority, and reserves room for refused callers in order.

    Without reservations, a router whose batch just finished would always refill a full worker first, and
    other routers would get nothing. Priorities have separate limits, because the engine takes queries before
    bulk.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._classes: defaultdict[int, _Class] = defaultdict(_Class)
        # Whether an `alone` batch is in the worker; which caller waits for that, and until when.
        self._alone = False
        self._next_alone = ""
        self._draining_until = -math.inf

    @property
    def items(self) -> int:
        """Accepted items that have not left."""
        return sum(one.items for one in self._classes.values())

    def enter(self, caller: str, priority: int, items: int, *, alone: bool = False) -> Stay | float:
        """Accept a batch until `leave`, or return the seconds after which to ask again.

        A batch over the limit is accepted when its class is empty. An `alone` batch is accepted when the
        worker is empty, and nothing else with it. After refusing one, the worker accepts nothing else for
        `ALONE_SECONDS`, and then everything for as long.
        """
        now = self._clock()
        if self._alone or (now < self._draining_until and not (alone and caller == self._next_alone)):
            return SHORTEST_WAIT
        if alone and self.items:
            if now >= self._draining_until + ALONE_SECONDS:
                self._next_alone, self._draining_until = caller, now + ALONE_SECONDS
            return SHORTEST_WAIT
        self._alone = alone
        self._draining_until = min(self._draining_until, now)
        state = self._classes[priority]
        state.reservations = {name: kept for name, kept in state.reservations.items() if kept.until >= now}
        before = takewhile(lambda name: name != caller, state.reservations)
        over = state.items + sum(state.reservations[name].items for name in before) + items - self._limit
        if state.items and over > 0:
            # Items leave at `state.items / state.seconds` per second.
            wait = min(max(EARLY * over / state.items * state.seconds, SHORTEST_WAIT), LONGEST_WAIT)
            state.reservations[caller] = _Reservation(items, now + wait + GRACE_SECONDS)
            return wait
        state.reservations.pop(caller, None)
        state.items += items
        return Stay(priority, items, now, alone)

    def leave(self, stay: Stay) -> None:
        """Release an accepted batch, whatever its outcome."""
        state = self._classes[stay.priority]
        state.items -= stay.items
        if stay.alone:
            self._alone = False
        seconds = self._clock() - stay.since
        state.seconds = seconds if not state.seconds else (3 * state.seconds + seconds) / 4
