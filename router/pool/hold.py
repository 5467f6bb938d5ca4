"""How long requests wait for a pool that nobody serves now: each for a bounded time, by one timer."""

import asyncio
from collections.abc import Callable, Iterable
from itertools import takewhile

from router.items import Gather, Item


class Hold:
    """The requests that a pool holds, each for `seconds`, after which `over` is called with it.

    With 0 seconds there is nothing to be held. A timer runs only while something is.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], over: Callable[[Gather], None]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._over = over
        # In the order in which they are over, since all are held for as long.
        self._until: dict[Gather, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, items: Iterable[Item]) -> None:
        """Hold the requests of `items` from now on; those that are held already keep their time."""
        until = self._clock() + self.seconds
        for item in items:
            self._until.setdefault(item.gather, until)
        self._arm()

    def forget(self, gather: Gather) -> None:
        """`gather` is closed."""
        self._until.pop(gather, None)

    def end(self) -> None:
        """What was held has somebody to go to, or has been refused."""
        self._until.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._until and self._timer is None:
            seconds = next(iter(self._until.values())) - self._clock()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._due)

    def _due(self) -> None:
        # uvloop's timers may be early; what is not over yet then waits for the next.
        self._timer = None
        now = self._clock()
        for gather, _ in [*takewhile(lambda held: held[1] <= now, self._until.items())]:
            self.forget(gather)
            self._over(gather)
        self._arm()
