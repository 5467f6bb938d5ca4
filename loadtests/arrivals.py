"""When requests are due in an open loop (pure)."""

import math
import random
from collections.abc import Iterator
from typing import Literal

from loadtests.results import Segment

Arrivals = Literal["poisson", "constant"]


def due_times(
    segment: Segment, arrivals: Arrivals, process: int, processes: int, draw: random.Random
) -> Iterator[float]:
    """Seconds since the segment's beginning, for one of several processes that share the rate.

    `poisson`: independent of one another, as those of many users are. `constant`: evenly spaced, the
    processes taking turns. Raises `ValueError` for a segment without a rate.
    """
    if segment.rate is None:
        raise ValueError(f"segment {segment.name} has no rate")
    low, high = segment.rate
    wanted = 0.0 if arrivals == "poisson" else process / processes - 1
    while True:
        wanted += draw.expovariate(1) if arrivals == "poisson" else 1
        at = _when(wanted * processes, low, high, segment.seconds)
        if at is None:
            return
        yield at


def _when(count: float, low: float, high: float, seconds: float) -> float | None:
    """When `count` requests have been due, at a rate that goes from `low` to `high`; None when never.

    That is the smaller root of low * t + slope * t^2 / 2 = count, in the form that is exact for small slopes.
    """
    slope = (high - low) / seconds
    inside = low * low + 2 * slope * count
    if inside < 0 or max(low, high) == 0:
        return None
    if count == 0:
        return 0.0
    at = 2 * count / (low + math.sqrt(inside))
    return at if at < seconds else None
