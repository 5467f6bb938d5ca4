"""When requests are due (pure)."""

import math
import random
from collections.abc import Iterator
from typing import Literal

from triptych.loadtests.results import Segment

Arrivals = Literal["poisson", "constant"]


def due_times(
    segment: Segment, arrivals: Arrivals, process: int, processes: int, draw: random.Random
) -> Iterator[float]:
    """Seconds since the segment's start at which one of several processes has requests due.

    `poisson`: independent arrivals, as of many users. `constant`: evenly spaced; the processes take turns.
    """
    low, high = segment.rate
    count = 0.0 if arrivals == "poisson" else process / processes - 1
    while True:
        count += draw.expovariate(1) if arrivals == "poisson" else 1
        at = _time_of(count * processes, low, high, segment.seconds)
        if at is None:
            return
        yield at


def _time_of(count: float, low: float, high: float, seconds: float) -> float | None:
    """When `count` requests have been due, at a rate that goes from `low` to `high`; None if never.

    The smaller root of low * t + slope * t^2 / 2 = count, in the form that is exact for small slopes.
    """
    slope = (high - low) / seconds
    discriminant = low * low + 2 * slope * count
    if discriminant < 0 or max(low, high) == 0:
        return None
    if count == 0:
        return 0.0
    at = 2 * count / (low + math.sqrt(discriminant))
    return at if at < seconds else None
