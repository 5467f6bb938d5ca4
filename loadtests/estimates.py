"""Figures of a run with confidence intervals, from the whole intervals of a segment after it has settled."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from triptych.loadtests.confidence import FEWEST, Array, Z, percentile, quotient, share_of
from triptych.loadtests.confidence import Estimate as Estimate
from triptych.loadtests.histogram import Counts, merged
from triptych.loadtests.results import Clock, Interval, Measured

Counted = Literal["sent", "done", "items", "tokens"]
"""Requests due, and requests, inputs and tokens that were answered well."""

# The harness counts as the bottleneck above these: CPU of one process, and lateness in seconds or as a share
# of the median latency.
BUSY = 0.9
LATE_SECONDS, LATE_SHARE = 5e-3, 0.2
# A full machine explains the lateness of a process that uses less CPU than `MODEST` itself.
FULL, MODEST = 0.9, 0.5


def rate(measured: Sequence[Measured], counted_as: Counted, flow: str | None = None) -> Estimate:
    """Count per second. With few intervals, requests arrive by a Poisson process, each with all its items."""
    counts = _sums(measured, flow, counted_as)
    seconds = np.array([one.interval for one in measured for _ in counted([one], flow)])
    if not len(counts):
        return Estimate(0.0, 0.0, 0.0)
    found = quotient(counts, seconds)
    requests = float(_sums(measured, flow, "sent" if counted_as == "sent" else "done").sum())
    if len(counts) >= FEWEST or not requests:
        return found
    half = Z * found.value / math.sqrt(requests)
    return Estimate(found.value, max(0.0, found.value - half), found.value + half)


def latency(measured: Sequence[Measured], share: float, flow: str | None = None) -> Estimate | None:
    """The `share` percentile (0 to 1) of good replies, in seconds; None if there was no reply."""
    return percentile(times(measured, flow), share)


def failure_share(measured: Sequence[Measured], flow: str | None = None) -> Estimate | None:
    """Failures, wrong replies included, as a share of the requests sent; None without requests."""
    requests = _sums(measured, flow, "sent")
    return share_of(_sums(measured, flow, "failed"), requests) if requests.any() else None


def replies(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Number of good replies."""
    return sum(merged(times(measured, flow)).values())


def sent(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Number of requests due."""
    return int(_sums(measured, flow, "sent").sum())


def times(measured: Sequence[Measured], flow: str | None = None, clock: Clock = "total") -> list[Counts]:
    """Histogram of the times of good replies on one clock, for each interval."""
    return [
        merged(interval.clocks.get(clock, {}) for interval in together)
        for together in counted(measured, flow)
    ]


def counted(measured: Sequence[Measured], flow: str | None = None) -> list[tuple[Interval, ...]]:
    """Whole intervals after the segment has settled; each with all flows, or with the named flow only."""
    found: list[tuple[Interval, ...]] = []
    for one in measured:
        first = math.ceil(one.segment.settle / one.interval - 1e-9)
        last = max(first, math.floor(one.segment.seconds / one.interval + 1e-9))
        parts = [intervals[first:last] for name, intervals in one.intervals.items() if flow in (None, name)]
        found += zip(*parts, strict=True)
    return found


def bottleneck(measured: Sequence[Measured]) -> str | None:
    """Why the harness itself may have limited the load; None if nothing suggests it.

    On a full machine, lateness of a process that uses little CPU is not the harness's fault.
    """
    for one in measured:
        middle = latency([one], 0.5)
        allowed = max(LATE_SECONDS, LATE_SHARE * middle.value if middle else 0.0)
        for process in one.processes:
            if process.cpu >= BUSY:
                return f"{process.name} of the harness used {process.cpu:.0%} of a core"
            others = process.machine_cpu >= FULL and process.cpu < MODEST
            if process.late > allowed and not others:
                return f"{process.name} of the harness was {process.late * 1e3:.0f} ms late (p99)"
    return None


def _sums(measured: Sequence[Measured], flow: str | None, name: str) -> Array:
    """The sum of an attribute of all flows, for each interval."""
    rows = counted(measured, flow)
    return np.array([sum(getattr(one, name) for one in together) for together in rows], float)
