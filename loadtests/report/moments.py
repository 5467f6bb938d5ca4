"""A run cut for drawing: over time, and by load."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.histogram import Counts, mean, merged, percentile
from loadtests.report.words import load_of, loads
from loadtests.results import Clock, Interval, Measured, Run, Segment

Column = NDArray[np.float64]

# So many parts a ramp is cut into, each taken as one load.
RAMP_PARTS = 12


class Moments(NamedTuple):
    """Columns with a value for each moment; `at` in seconds since the run began, `offered`, `answered` and
    `failures` (by kind) a second, `latency` in seconds by clock and share. NaN: nothing was counted, or the
    load paused."""

    at: Column
    offered: Column
    answered: Column
    in_flight: Column
    failures: dict[str, Column]
    latency: dict[tuple[Clock, float], Column]


class Point(NamedTuple):
    """What was measured under one load, in requests a second or users. `verdict` is the search's."""

    label: str
    load: float
    measured: list[Measured]
    verdict: Literal["holds", "fails", "unclear"] | None = None


def moments(
    run: Run,
    latency: Sequence[tuple[Clock, float]] = (),
    flow: str | None = None,
    most: int = 240,
) -> Moments:
    """Of one flow, or all. Neighbouring intervals are taken together: about `most` moments are left."""
    total = sum(_length(measured) for measured in run.segments)
    together = max(1, math.ceil(total / most))
    kinds = sorted({kind for one in run.segments for each in _of(one, flow) for kind in each.failures})
    rows: list[list[float]] = []
    end = None
    for measured in run.segments:
        if end is not None and measured.began - end > measured.interval:
            rows.append([end, *[math.nan] * (3 + len(kinds) + len(latency))])
        end = measured.began + measured.segment.seconds
        for start, seconds, intervals in _groups(measured, flow, together):
            offered = sum(one.sent for one in intervals) / seconds
            answered = sum(one.done for one in intervals) / seconds
            failed = [sum(one.failures.get(kind, 0) for one in intervals) / seconds for kind in kinds]
            open_now = _in_flight(measured, flow, start, seconds)
            times = [_percentile(clock_counts(intervals, clock), part) for clock, part in latency]
            rows.append([measured.began + start + seconds / 2, offered, answered, open_now, *failed, *times])
    table = np.array(rows).T
    at, offered, answered, in_flight = table[:4]
    return Moments(
        at,
        offered,
        answered,
        in_flight,
        failures=dict(zip(kinds, table[4:], strict=False)),
        latency=dict(zip(latency, table[4 + len(kinds) :], strict=True)),
    )


def points(run: Run) -> list[Point]:
    """By load, the least first. Of a search its probes, of a ramp its parts."""
    if run.capacity is not None:
        probes = sorted(run.capacity.probes, key=lambda probe: probe.rate)
        return [
            Point(
                load_of(run.segments[probe.segments[0]].segment),
                probe.rate,
                [run.segments[number] for number in probe.segments],
                probe.verdict,
            )
            for probe in probes
            if probe.segments
        ]
    found: dict[float, Point] = {}
    for measured in run.segments:
        for part in _parts(measured):
            load = sum(loads(part.segment)[:2]) / 2
            label = load_of(part.segment)
            found.setdefault(load, Point(label, load, [])).measured.append(part)
    return [found[load] for load in sorted(found)]


def counted(measured: Measured, flow: str | None = None) -> list[Interval]:
    """The intervals of a flow, or of all, that began after the load had settled."""
    first = math.ceil(measured.segment.settle / measured.interval - 1e-9)
    return [one for intervals in _flows(measured, flow) for one in intervals[first:]]


def clock_counts(intervals: Iterable[Interval], clock: Clock) -> Counts:
    """How often each time was counted on one clock."""
    return merged(interval.clocks.get(clock, {}) for interval in intervals)


def clock_percentile(
    measured: Iterable[Measured], part: float, clock: Clock = "total", flow: str | None = None
) -> float:
    """In seconds, of what was counted after the load had settled; NaN where nothing was."""
    return _percentile(
        merged(clock_counts(counted(one, flow), clock) for one in measured),
        part,
    )


def clock_mean(measured: Iterable[Measured], clock: Clock) -> float | None:
    """In seconds, as `clock_percentile`; None where nothing was counted."""
    counts = merged(clock_counts(counted(one), clock) for one in measured)
    return mean(counts) if counts else None


def _percentile(counts: Counts, part: float) -> float:
    return percentile(counts, part) if counts else math.nan


def _flows(measured: Measured, flow: str | None) -> Iterable[list[Interval]]:
    return measured.intervals.values() if flow is None else [measured.intervals.get(flow, [])]


def _of(measured: Measured, flow: str | None) -> Iterator[Interval]:
    for intervals in _flows(measured, flow):
        yield from intervals


def _length(measured: Measured) -> int:
    return max(map(len, measured.intervals.values()), default=0)


def _groups(
    measured: Measured, flow: str | None, together: int
) -> Iterator[tuple[float, float, list[Interval]]]:
    """Where each begins in the segment, how long it is, and its intervals; a short rest joins the last."""
    length, step = _length(measured), together * measured.interval
    whole = max(1, round(measured.segment.seconds / step))
    for number in range(whole):
        first = number * together
        last = length if number == whole - 1 else first + together
        seconds = min(last * measured.interval, measured.segment.seconds) - first * measured.interval
        if seconds > 0:
            yield (
                first * measured.interval,
                seconds,
                [one for row in _flows(measured, flow) for one in row[first:last]],
            )


def _in_flight(measured: Measured, flow: str | None, start: float, seconds: float) -> float:
    """At the end of the last interval that ended in the group."""
    number = max(0, math.ceil((start + seconds) / measured.interval - 1e-9) - 1)
    return sum(row[min(number, len(row) - 1)].in_flight for row in _flows(measured, flow) if row)


def _parts(measured: Measured) -> list[Measured]:
    """A ramp in parts, each as if its load were a segment of its own; anything else as it is."""
    low, high, unit = loads(measured.segment)
    if low == high:
        return [measured]
    length = int(measured.segment.seconds / measured.interval + 1e-9)
    settled = math.ceil(measured.segment.settle / measured.interval - 1e-9)
    count = min(RAMP_PARTS, max(1, length - settled))
    edges = [settled + round((length - settled) * number / count) for number in range(count + 1)]
    found = []
    for first, last in pairwise(edges):
        middle = low + (high - low) * (first + last) / 2 * measured.interval / measured.segment.seconds
        segment = Segment(name=measured.segment.name, seconds=(last - first) * measured.interval)
        if unit == "users":
            segment.users = (round(middle), round(middle))
        else:
            segment.rate = (middle, middle)
        intervals = {flow: row[first:last] for flow, row in measured.intervals.items()}
        began = measured.began + first * measured.interval
        found.append(msgspec.structs.replace(measured, segment=segment, began=began, intervals=intervals))
    return found
