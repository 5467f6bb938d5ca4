"""Simulated time, and an engine that runs steps one after another over the batches that wait."""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable

from triptych.loadtests.simulate.profiles import Profile
from triptych.router.items import Batch

_Waiting = tuple[Batch, Callable[[], None]]


class Events:
    """Calls actions in order of time (seconds). Actions of one time keep their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []

    def after(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        """Call `action` in `seconds`."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + seconds, self._count, action, args))

    def run(self, until: float = math.inf) -> None:
        """Run all events up to `until`, by default until there are no more."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action, args = heapq.heappop(self._heap)
            action(*args)
        if until < math.inf:
            self.now = until


class Engine:
    """Takes whole batches in order. `busy` counts the seconds of all steps begun.

    vLLM fills its steps by the item and may split an item. Here a batch waits until it fits.
    """

    def __init__(self, events: Events, profile: Profile, draw: random.Random) -> None:
        self.busy = 0.0
        self._idle = True
        self._events = events
        self._profile = profile
        self._draw = draw
        self._line: deque[_Waiting] = deque()

    def give(self, batch: Batch, done: Callable[[], None]) -> None:
        """Queue `batch`. `done` is called at the end of its step."""
        self._line.append((batch, done))
        if self._idle:
            self._step()

    def _step(self) -> None:
        taken: list[_Waiting] = []
        items = tokens = 0
        while self._line:
            batch, _ = self._line[0]
            items, tokens = items + len(batch.items), tokens + batch.tokens
            if taken and (items > self._profile.step_items or tokens > self._profile.step_tokens):
                items, tokens = items - len(batch.items), tokens - batch.tokens
                break
            taken.append(self._line.popleft())
        self._idle = not taken
        if taken:
            seconds = self._profile.step(items, tokens, self._draw)
            self.busy += seconds
            self._events.after(seconds, self._end, taken)

    def _end(self, taken: list[_Waiting]) -> None:
        # The next step begins before the replies leave, so a lane's next batch misses it.
        self._step()
        for _, done in taken:
            done()
