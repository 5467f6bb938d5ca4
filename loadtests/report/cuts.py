"""A run cut into pieces for the report: by load, and by time."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from triptych.loadtests import estimates
from triptych.loadtests.histogram import mean, merged, percentile
from triptych.loadtests.report.words import load_of, loads
from triptych.loadtests.results import Clock, Measured, Run, Segment

RAMP_PARTS = 12
MOST_MOMENTS = 240


class Point(NamedTuple):
    """Measurements under one load, in requests per second or users. A search adds its `verdict`."""

    label: str
    load: float
    measured: list[Measured]
    verdict: Literal["holds", "fails", "unclear"] | None = None


class Moment(NamedTuple):
    """A short piece of a run around `at` seconds after its start; `measured` is None in a pause."""

    at: float
    measured: Measured | None


def points(run: Run) -> list[Point]:
    """The loads of a run in rising order: the probes of a search, the parts of a ramp, or the segments."""
    if run.capacity is not None:
        return [
            Point(
                load_of(run.segments[probe.segments[0]].segment),
                probe.rate,
                [run.segments[index] for index in probe.segments],
                probe.verdict,
            )
            for probe in sorted(run.capacity.probes, key=lambda probe: probe.rate)
            if probe.segments
        ]
    found: dict[float, Point] = {}
    for measured in run.segments:
        low, high, _ = loads(measured.segment)
        for part in [measured] if low == high else _ramp(measured):
            load = sum(loads(part.segment)[:2]) / 2
            found.setdefault(load, Point(load_of(part.segment), load, [])).measured.append(part)
    return [found[load] for load in sorted(found)]


def moments(run: Run, most: int = MOST_MOMENTS) -> list[Moment]:
    """The run in about `most` pieces in order of time, settling included."""
    together = max(1, math.ceil(sum(map(_length, run.segments)) / most))
    found: list[Moment] = []
    end = math.inf
    for measured in run.segments:
        if measured.began - end > measured.interval:
            found.append(Moment(end, None))
        end = measured.began + measured.segment.seconds
        # A rest joins the last piece.
        pieces = max(1, math.floor(measured.segment.seconds / (together * measured.interval) + 1e-9))
        edges = [*(number * together for number in range(pieces)), _length(measured)]
        for piece in (_cut(measured, first, last) for first, last in pairwise(edges)):
            found.append(Moment(piece.began + piece.segment.seconds / 2, piece))
    return found


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


def _length(measured: Measured) -> int:
    return max(map(len, measured.intervals.values()), default=0)


def _ramp(measured: Measured) -> list[Measured]:
    whole = int(measured.segment.seconds / measured.interval + 1e-9)
    settled = math.ceil(measured.segment.settle / measured.interval - 1e-9)
    parts = min(RAMP_PARTS, max(1, whole - settled))
    edges = (settled + round((whole - settled) * number / parts) for number in range(parts + 1))
    return [_cut(measured, first, last) for first, last in pairwise(edges)]


def _cut(measured: Measured, first: int, last: int) -> Measured:
    """Some intervals as a segment of their own, with the load in their middle."""
    start, end = first * measured.interval, min(last * measured.interval, measured.segment.seconds)
    low, high, unit = loads(measured.segment)
    load = low + (high - low) * (start + end) / 2 / measured.segment.seconds
    segment = Segment(name=measured.segment.name, seconds=end - start)
    if unit == "users":
        segment.users = (round(load), round(load))
    else:
        segment.rate = (load, load)
    intervals = {flow: row[first:last] for flow, row in measured.intervals.items()}
    return msgspec.structs.replace(
        measured, segment=segment, began=measured.began + start, intervals=intervals
    )
