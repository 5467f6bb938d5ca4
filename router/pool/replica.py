"""Replicas: whether each may be given work, what it has in flight, and what those of a pool serve."""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from triptych.router.errors import UNAVAILABLE_SECONDS, SpaceMismatch
from triptych.router.items import Batch, Item, Priority
from triptych.router.pool.breaker import Breaker, BreakerState
from triptych.router.pool.pace import Pace
from triptych.workers.shared import contract

log = logging.getLogger(__name__)

# Pause of an overloaded replica that gives no time; up to twice as long, by chance.
PAUSE_SECONDS = 0.05
# Longest pause, whatever a replica asks for.
LONGEST_PAUSE_SECONDS = 2.0
# Time for the probe that follows a lost connection to tell whether the worker's process has died.
VERDICT_SECONDS = 12.0


class State(Enum):
    """Whether a replica may be given work. Only a probe makes it READY.

    SUSPECT lasts from a lost connection to the probe that tells whether the worker died.
    """

    DOWN = "down"
    SUSPECT = "suspect"
    READY = "ready"
    DRAINING = "draining"


UP = (State.READY, State.SUSPECT)


class Replica:
    """One worker at its address; `lanes` is the number of batches that it may have in flight.

    `changed` is called after a change of state. `successes` counts batches. `quarantined` is set while it
    has a suspect item. `version` is its label in the discovery document. Times are arguments.
    """

    def __init__(self, address: str, pool: contract.PoolName, lanes: int) -> None:
        self.address = address
        self.pool = pool
        self.lanes = lanes
        self.state = State.DOWN
        self.reason = "not probed yet"
        self.info: contract.Info | None = None
        self.breaker = Breaker()
        self.pace = Pace()
        self.successes = 0
        self.tokens_in_flight = 0
        self.lanes_in_use = 0
        self.bulk_lanes_in_use = 0
        self.quarantined = False
        self.version: str | None = None
        self.changed: Callable[[], None] = lambda: None
        self._paused_until = {priority: 0.0 for priority in Priority}
        self._all_failed = False
        self._gone = False
        self._judged = asyncio.Event()
        self._removed = False

    def __str__(self) -> str:
        return f"replica {self.address} of pool {self.pool}"

    @property
    def space(self) -> str:
        """The vector space of its results; "" before the first probe."""
        return self.info.space if self.info else ""

    @property
    def sound(self) -> bool:
        """Whether it is ready and some item of its last batch succeeded."""
        return self.state is State.READY and not self.breaker.failures and not self._all_failed

    def has_free_lane(self, now: float, priority: Priority = Priority.INTERACTIVE) -> bool:
        """Whether it can take a batch of a priority now.

        An unsound replica gets one batch at a time until one succeeds, a slow one as long as it is slow.
        """
        lanes = self.lanes if self.sound and not self.pace.slow else 1
        return (
            self.state is State.READY
            and self.lanes_in_use < lanes
            and not self.quarantined
            and self._paused_until[priority] <= now
            and self.breaker.state(now) is not BreakerState.OPEN
        )

    def usable(self, now: float) -> bool:
        """Whether it is up, or may be, and its breaker is not open."""
        if self.state is State.READY:
            return self.breaker.state(now) is not BreakerState.OPEN
        return self.state is State.SUSPECT

    def next_end(self, now: float) -> float:
        """When the next pause or open breaker ends; inf without one."""
        if self.state is not State.READY:
            return math.inf
        ends = (self.breaker.open_until, *self._paused_until.values())
        return min((end for end in ends if end > now), default=math.inf)

    def up(self, info: contract.Info) -> None:
        """A probe has found it ready."""
        restarted = self.info is not None and self.info.instance != info.instance
        self.info = info
        if self._gone or restarted:
            # Another process than the one that failed.
            self.breaker = Breaker()
            self.pace = Pace()
            self._all_failed = False
            self._gone = False
        if restarted and self.state is State.READY:
            # The new process may serve another vector space.
            self.changed()
        self._become(State.READY, "ready")

    def down(self, reason: str, *, gone: bool = False) -> None:
        """It cannot be given work; `gone` means that its process has ended."""
        self._gone = self._gone or gone
        self._become(State.DOWN, reason)

    def suspect(self, reason: str) -> None:
        """It may be gone. It gets nothing until the next probe, which starts at once."""
        if self.state is State.READY:
            self._judged.clear()
            self._become(State.SUSPECT, reason)

    def draining(self) -> None:
        """It is stopping: it finishes what it has and takes no more."""
        self._become(State.DRAINING, "draining")

    def expect(self) -> None:
        """Treat a new replica as up until its first probe."""
        self._judged.clear()
        self.state = State.SUSPECT

    def remove(self) -> None:
        """It is no longer probed; batches in flight may still finish."""
        self.changed = lambda: None
        self._removed = True
        self._judged.set()

    async def has_died(self, instance: str) -> bool:
        """Whether there is evidence that the process `instance` has ended; waits for a pending probe.

        Evidence is a refused connection, or another process at the address. A worker that is stopping,
        removed or silent may still be alive.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(VERDICT_SECONDS):
                while self.state is State.SUSPECT and not self._removed:
                    await self._judged.wait()
        return self._gone or (self.info is not None and self.info.instance != instance)

    def acquire(self, batch: Batch) -> None:
        """Take a lane for `batch`, until `release`; a suspect takes the whole replica."""
        self.quarantined = batch.suspect
        self.lanes_in_use += 1
        self.bulk_lanes_in_use += batch.priority is Priority.BULK
        self.tokens_in_flight += batch.tokens

    def release(self, batch: Batch) -> None:
        self.quarantined = False
        self.lanes_in_use -= 1
        self.bulk_lanes_in_use -= batch.priority is Priority.BULK
        self.tokens_in_flight -= batch.tokens

    def pause(self, priority: Priority, seconds: float | None, now: float) -> None:
        """Give it nothing of a priority for `seconds`, or until a batch of that priority is done.

        Batches in flight together are refused together, which counts once. Without `seconds` the pause is
        random, so that several routers do not ask in step.
        """
        if now >= self._paused_until[priority]:
            if seconds is None:
                seconds = PAUSE_SECONDS * random.uniform(1, 2)
            self._paused_until[priority] = now + min(seconds, LONGEST_PAUSE_SECONDS)

    def record_answer(self, batch: Batch, tokens_in_flight: int, seconds: float) -> None:
        """It answered every item of `batch` after `seconds`.

        `tokens_in_flight`, the batch's own included, were in flight when it was sent. If all items failed
        inside, this counts neither as success nor as failure: a dead engine would look very fast, and a few
        items that no replica can encode would close the pool to all others.
        """
        self._paused_until[batch.priority] = 0.0
        self._all_failed = len(batch.failures) == len(batch.items)
        if not self._all_failed:
            self.breaker.succeeded()
            self.pace.observe(tokens_in_flight, seconds)
            self.successes += 1

    def record_failure(self, reason: str, started: float, now: float) -> None:
        """A batch that was sent at `started` has failed."""
        self.breaker.failed(started, now)
        if self.breaker.state(now) is BreakerState.OPEN:
            self.reason = f"{self.breaker.failures} failures in a row, the last: {reason}"
            seconds = self.breaker.open_until - now
            log.warning("%s is left out for %.1f s: %s", self, seconds, self.reason)

    def _become(self, state: State, reason: str) -> None:
        self.reason = reason
        if state is self.state:
            return
        self.state = state
        if state is not State.SUSPECT:
            self._judged.set()
        level = logging.INFO if state is State.READY else logging.WARNING
        log.log(level, "%s is %s: %s", self, state.value, reason)
        self.changed()


class Replicas(tuple[Replica, ...]):
    """The replicas of one pool, in any state. Times are arguments."""

    __slots__ = ()

    @property
    def up(self) -> bool:
        """Whether any replica is up, even with an open breaker: admitted work waits for it."""
        return any(replica.state in UP for replica in self)

    @property
    def spaces(self) -> list[str]:
        """The vector spaces that are served: one, or two during an upgrade."""
        return sorted({replica.space for replica in self if replica.state in UP and replica.info})

    @property
    def lanes(self) -> int:
        """The number of batches that they may have in flight."""
        return sum(replica.lanes for replica in self)

    @property
    def tokens_in_flight(self) -> int:
        """Tokens, estimated, of the batches in flight."""
        # Without `sum`, whose generator takes longer than the loop.
        tokens = 0
        for replica in self:
            tokens += replica.tokens_in_flight
        return tokens

    def mismatch(self, item: Item) -> SpaceMismatch | None:
        """The error for an item whose client accepts no vector space that is served; None if it does."""
        required = item.job.required_of(item.pool)
        served = [item.space_of(space) for space in self.spaces]
        if not required or not served or not required.isdisjoint(served):
            return None
        return SpaceMismatch(
            f"the pool {item.pool} serves the vector space {' and '.join(served)}; "
            "x-require-vector-space names another"
        )

    def usable(self, now: float) -> bool:
        """Whether any replica takes work, or soon will."""
        # Without `any`, whose generator was 4 % of a request's time.
        for replica in self:  # noqa: SIM110
            if replica.usable(now):
                return True
        return False

    def retry_after(self, now: float) -> int:
        """Seconds after which a refused request is worth sending again: until a breaker lets a batch try."""
        trials = [replica.breaker.open_until - now for replica in self if replica.state is State.READY]
        return max(1, math.ceil(min(trials, default=UNAVAILABLE_SECONDS)))

    def compare_pace(self, replica: Replica, now: float) -> None:
        """Compare the pace of `replica` with those that could have its work; alone it is not slow."""
        others = [
            other.pace
            for other in self
            if other is not replica and other.state is State.READY and other.usable(now)
        ]
        if replica.pace.compare(others):
            text = "slow: it gets one batch at a time" if replica.pace.slow else "no longer slow"
            log.warning("%s is %s", replica, text)
