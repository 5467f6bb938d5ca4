"""A simulated engine: runs steps one after another over the batches that wait."""

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from loadtests.simulate.events import Events
from loadtests.simulate.profiles import Profile
from router.items import Batch


class _Waiting(NamedTuple):
    batch: Batch
    done: Callable[[], None]


class Engine:
    """Takes whole batches in order. `busy` counts the seconds of all steps begun.

    vLLM fills its steps by the item and may split an item. Here a batch waits until it fits.
    """

    def __init__(self, events: Events, profile: Profile, draw: random.Random) -> None:
        self.busy = 0.0
        self.idle = True
        self.batches = 0
        self._events = events
        self._profile = profile
        self._draw = draw
        self._line: deque[_Waiting] = deque()

    def give(self, batch: Batch, done: Callable[[], None]) -> None:
        """Queue `batch`. `done` is called at the end of its step."""
        self.batches += 1
        self._line.append(_Waiting(batch, done))
        if self.idle:
            self._step()

    def _step(self) -> None:
        taken: list[_Waiting] = []
        items = tokens = 0
        while self._line:
            batch = self._line[0].batch
            fits = (
                items + len(batch.items) <= self._profile.step_items
                and tokens + batch.tokens <= self._profile.step_tokens
            )
            if taken and not fits:
                break
            taken.append(self._line.popleft())
            items += len(batch.items)
            tokens += batch.tokens
        self.idle = not taken
        if taken:
            seconds = self._profile.step(items, tokens, self._draw)
            self.busy += seconds
            self._events.at(self._events.now + seconds, self._end, taken)

    def _end(self, taken: list[_Waiting]) -> None:
        # The next step begins before the replies leave, so a lane's next batch misses it.
        self._step()
        for waiting in taken:
            waiting.done()
