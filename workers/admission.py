"""Which batches a worker takes that is asked for more than it may hold (pure)."""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

# A refused caller is told to come back after this many seconds at least, and at most.
SHORTEST_WAIT = 0.05
LONGEST_WAIT = 1.0
# Who asks too early has asked in vain; but where all came too late the engine would run dry.
SOONER = 0.9
# Its place is kept for so much longer: the way there and back, and a busy router.
GRACE_SECONDS = 0.25
# So long a worker empties itself for a batch that is to be alone, before others have as long a turn.
ALONE_SECONDS = 1.0


@dataclass
class Stay:
    """A batch that was taken."""

    priority: int
    items: int
    since: float
    alone: bool = False


@dataclass
class _Turn:
    """What a refused caller wants, and until when that is kept for it."""

    items: int
    until: float


@dataclass
class _Class:
    """Those of one priority. Callers come in the order in which they were first refused."""

    items: int = 0
    turns: dict[str, _Turn] = field(default_factory=dict)
    # How long a batch has stayed, lately.
    seconds: float = 0.0


class Admission:
    """At most `most` items of each priority, and whoever is refused comes before those that ask later.

    Routers know nothing of one another. A router whose batch is done is the first to know that a full worker
    has room, and would fill it again for as long as it has work; one that asks from time to time would get
    nothing. And bulk that fills a worker is no reason to refuse queries, which the engine takes first.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._classes: defaultdict[int, _Class] = defaultdict(_Class)
        # A batch that has the worker to itself, and the caller that waits for such a turn.
        self._alone = False
        self._next_alone = ""
        self._kept_until = -math.inf

    @property
    def items(self) -> int:
        """Those that were taken and have not left."""
        return sum(its.items for its in self._classes.values())

    def enter(self, caller: str, priority: int, items: int, *, alone: bool = False) -> Stay | float:
        """Take a batch of `caller`, until `leave`; or the seconds after which it should ask again.

        One that is larger than the limit is taken when there is nothing else, or it would wait for ever.
        One that is to be `alone` is taken when there is nothing else, and nothing else while it is there. For
        `ALONE_SECONDS` after it was refused nothing new is taken, and as long afterwards anything.
        """
        now = self._clock()
        if self._alone or (now < self._kept_until and not (alone and caller == self._next_alone)):
            return SHORTEST_WAIT
        if alone and self.items:
            if now >= self._kept_until + ALONE_SECONDS:
                self._next_alone, self._kept_until = caller, now + ALONE_SECONDS
            return SHORTEST_WAIT
        self._alone = alone
        self._kept_until = min(self._kept_until, now)
        its = self._classes[priority]
        its.turns = {name: turn for name, turn in its.turns.items() if turn.until >= now}
        before = takewhile(lambda name: name != caller, its.turns)
        over = its.items + sum(its.turns[name].items for name in before) + items - self._most
        if its.items and over > 0:
            # What is here leaves at the rate at which it came.
            wait = min(max(SOONER * over / its.items * its.seconds, SHORTEST_WAIT), LONGEST_WAIT)
            its.turns[caller] = _Turn(items, now + wait + GRACE_SECONDS)
            return wait
        its.turns.pop(caller, None)
        its.items += items
        return Stay(priority, items, now, alone)

    def leave(self, stay: Stay) -> None:
        """A batch that was taken has ended, however."""
        its = self._classes[stay.priority]
        its.items -= stay.items
        if stay.alone:
            self._alone = False
        stayed = self._clock() - stay.since
        its.seconds = stayed if not its.seconds else (3 * its.seconds + stayed) / 4
