"""How long jobs are held for a pool without replicas (pure)."""

import math
from collections import OrderedDict
from collections.abc import Iterable
from itertools import takewhile

from triptych.router.items import Item, Job


class Hold:
    """The jobs that a pool holds, each for `seconds`; 0 holds nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # In the order of their ends, since all are held for the same time.
        self._until: OrderedDict[Job, float] = OrderedDict()

    @property
    def ends_at(self) -> float:
        """When the first of them has been held for too long; inf if there are none."""
        return next(iter(self._until.values()), math.inf)

    def begin(self, items: Iterable[Item], now: float) -> None:
        """Hold the jobs of `items` from now on; jobs that are held already keep their time."""
        for item in items:
            self._until.setdefault(item.job, now + self.seconds)

    def forget(self, job: Job) -> None:
        """`job` is closed."""
        self._until.pop(job, None)

    def end(self) -> None:
        """A replica is up, or all jobs were refused."""
        self._until.clear()

    def pop_expired(self, now: float) -> list[Job]:
        """Remove and return the jobs that were held for too long."""
        jobs = [job for job, _ in takewhile(lambda held: held[1] <= now, self._until.items())]
        for job in jobs:
            self.forget(job)
        return jobs
