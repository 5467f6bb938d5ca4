"""A worker's engine: does steps one after another, each with as many of the waiting batches as it takes."""

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from loadtests.simulate.events import Events
from loadtests.simulate.profiles import Profile
from router.items import Batch


class _Given(NamedTuple):
    batch: Batch
    done: Callable[[], None]


class Engine:
    """Batches stay whole, and those of interactive items go first. `busy` is in seconds of steps begun.

    vLLM fills its steps by the item and may cut an item in two; a batch here waits until it fits.
    """

    def __init__(self, events: Events, profile: Profile, draw: random.Random) -> None:
        self.busy = 0.0
        self.idle = True
        self.batches = 0
        self._events = events
        self._profile = profile
        self._draw = draw
        self._waiting: tuple[deque[_Given], deque[_Given]] = (deque(), deque())

    def give(self, batch: Batch, done: Callable[[], None]) -> None:
        """Have `batch` done; `done` is called when it is."""
        self.batches += 1
        self._waiting[batch.bulk].append(_Given(batch, done))
        if self.idle:
            self._step()

    def _step(self) -> None:
        taken: list[_Given] = []
        items = tokens = 0
        for line in self._waiting:
            while line:
                batch = line[0].batch
                if taken and (
                    items + len(batch.items) > self._profile.step_items
                    or tokens + batch.tokens > self._profile.step_tokens
                ):
                    break
                taken.append(line.popleft())
                items += len(batch.items)
                tokens += batch.tokens
        self.idle = not taken
        if taken:
            seconds = self._profile.step(items, tokens, self._draw)
            self.busy += seconds
            self._events.at(self._events.now + seconds, self._end, taken)

    def _end(self, taken: list[_Given]) -> None:
        # What waits begins before any reply is sent: a lane's next batch comes too late for this step.
        self._step()
        for given in taken:
            given.done()
