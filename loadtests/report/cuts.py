"""A run cut into pieces for the report: by load, and by time."""

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from triptych.loadtests import estimates
from triptych.loadtests.histogram import mean, merged, percentile
from triptych.loadtests.results import Clock, Measured, Run, Segment

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
    """The run in about `most` pieces in order of time, settling included."""
    seconds = sum(measured.segment.seconds for measured in run.segments)
    return [
        piece
        for measured in run.segments
        for piece in _pieces(measured, math.floor(most * measured.segment.seconds / seconds))
    ]


def middle(piece: Measured) -> float:
    """Seconds from the run's start."""
    return piece.began + piece.segment.seconds / 2


def latency(
    measured: Iterable[Measured], share: float, clock: Clock = "total", flow: str | None = None
) -> float:
    """The `share` percentile in seconds, without an interval; NaN if there was no reply."""
    counts = merged(estimates.times(list(measured), flow, clock))
    return percentile(counts, share) if counts else math.nan


def mean_time(measured: Iterable[Measured], clock: Clock) -> float | None:
    """The mean time in seconds; None if there was no reply."""
    counts = merged(estimates.times(list(measured), None, clock))
    return mean(counts) if counts else None


def _pieces(measured: Measured, count: int) -> Iterator[Measured]:
    """The intervals in `count` segments of their own.

    There are fewer segments if there are fewer whole intervals. A rest joins the last one.
    """
    whole = max(1, math.floor(measured.segment.seconds / measured.interval + 1e-9))
    for numbers in np.array_split(np.arange(whole), max(1, min(count, whole))):
        begin, end = int(numbers[0]), int(numbers[-1]) + 1
        last = end == whole
        start = begin * measured.interval
        stop = measured.segment.seconds if last else end * measured.interval
        segment = Segment(name=measured.segment.name, seconds=stop - start, rate=measured.segment.rate)
        intervals = {flow: row[begin : None if last else end] for flow, row in measured.intervals.items()}
        yield msgspec.structs.replace(
            measured, segment=segment, began=measured.began + start, intervals=intervals
        )
