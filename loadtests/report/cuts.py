"""A run cut into pieces for the report: by load, and by time."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from msgspec.structs import replace

from triptych.loadtests import estimates
from triptych.loadtests.histogram import merged, percentile
from triptych.loadtests.results import Clock, Measured, Run

MOST_MOMENTS = 240


class Point(NamedTuple):
    """Measurements under one load, in requests per second. A search adds its `verdict`."""

    load: float
    measured: list[Measured]
    verdict: Literal["holds", "fails", "unclear"] | None = None


def points(run: Run) -> list[Point]:
    """The loads of a run in rising order: the probes of a search, or the segments."""
    if run.capacity is not None:
        return [
            Point(probe.rate, [run.segments[index] for index in probe.segments], probe.verdict)
            for probe in sorted(run.capacity.probes, key=lambda probe: probe.rate)
            if probe.segments
        ]
    found: dict[float, list[Measured]] = {}
    for measured in run.segments:
        found.setdefault(measured.segment.rate, []).append(measured)
    return [Point(load, found[load]) for load in sorted(found)]


def moments(run: Run, most: int = MOST_MOMENTS) -> list[Measured]:
    """The run in at most about `most` pieces in order of time, settling included."""
    seconds = sum(measured.segment.seconds for measured in run.segments) / most
    return [piece for measured in run.segments for piece in _pieces(measured, seconds)]


def middle(piece: Measured) -> float:
    """Seconds from the run's start."""
    return piece.began + piece.segment.seconds / 2


def latency(
    measured: Sequence[Measured], share: float, clock: Clock = "total", flow: str | None = None
) -> float:
    """The `share` percentile in seconds, without an interval; NaN if there was no reply."""
    counts = merged(estimates.times(measured, flow, clock))
    return percentile(counts, share) if counts else math.nan


def _pieces(measured: Measured, seconds: float) -> Iterator[Measured]:
    """Pieces of whole intervals that last `seconds` or a little longer. A rest joins the last one."""
    segment, interval = measured.segment, measured.interval
    whole, step = math.floor(segment.seconds / interval + 1e-9), math.ceil(seconds / interval)
    for begin in range(0, max(1, whole), step):
        end = begin + step if begin + step < whole else None
        lasts = segment.seconds - begin * interval if end is None else step * interval
        yield replace(
            measured,
            segment=replace(segment, seconds=lasts, settle=0.0),
            began=measured.began + begin * interval,
            intervals={flow: row[begin:end] for flow, row in measured.intervals.items()},
        )
