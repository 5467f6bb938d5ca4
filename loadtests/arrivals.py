"""When requests are due (pure)."""

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
    count = 0.0 if arrivals == "poisson" else process / processes - 1
    while segment.rate:
        count += draw.expovariate(1) if arrivals == "poisson" else 1
        at = count * processes / segment.rate
        if at >= segment.seconds:
            return
        yield at
