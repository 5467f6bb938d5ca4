"""What one process of the harness notes down of its requests, to be sent on and added up by the conductor."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec

from loadtests.histogram import bucket
from loadtests.results import Clock, Interval, Segment


class Noted(msgspec.Struct, array_like=True):
    """One flow in one interval, by number, of one segment, by number: what came to it since it was last
    sent."""

    segment: int
    flow: str
    number: int
    interval: Interval


class Samples(msgspec.Struct, array_like=True):
    """What is new in one process. `examples` has one message for each kind of failure met for the first
    time."""

    noted: list[Noted]
    examples: dict[str, str]


class Timeline:
    """Segments one after another, cut into intervals of `interval` seconds."""

    def __init__(self, segments: Sequence[Segment], interval: float) -> None:
        self.segments = tuple(segments)
        self.interval = interval
        ends = list(accumulate(segment.seconds for segment in segments))
        self.begins = (0.0, *ends[:-1])
        self.seconds = ends[-1]

    def place(self, at: float) -> tuple[int, int] | None:
        """The segment and its interval that `at`, in seconds since the beginning, lies in; None past the
        end."""
        if at >= self.seconds:
            return None
        number = max(0, bisect_right(self.begins, at) - 1)
        return number, max(0, int((at - self.begins[number]) / self.interval))


def interval_for(segments: Iterable[Segment]) -> float:
    """Seconds: a twentieth of the shortest segment, within 0.25 to 1, and at most 600 of them altogether."""
    lengths = [segment.seconds for segment in segments]
    return max(0.25, min(1.0, min(lengths) / 20), sum(lengths) / 600)


class Recorder:
    """Moments are in seconds since the beginning of the timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._new: dict[tuple[int, int, str], Interval] = {}
        self._in_flight: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._known: set[str] = set()

    @property
    def in_flight(self) -> int:
        """Requests that have no answer yet."""
        return sum(self._in_flight.values())

    def sent(self, flow: str, due: float) -> None:
        """A request was due."""
        self._in_flight[flow] = self._in_flight.get(flow, 0) + 1
        if interval := self._interval(flow, due):
            interval.sent += 1

    def answered(
        self, flow: str, due: float, ended: float, items: int, tokens: int, clocks: Mapping[Clock, float]
    ) -> None:
        """It was answered well; `clocks` in seconds."""
        self._in_flight[flow] -= 1
        if interval := self._interval(flow, due):
            for clock, seconds in clocks.items():
                counts = interval.clocks.setdefault(clock, {})
                number = bucket(seconds)
                counts[number] = counts.get(number, 0) + 1
        if interval := self._interval(flow, ended):
            interval.done += 1
            interval.items += items
            interval.tokens += tokens

    def failed(self, flow: str, due: float, kind: str, example: str) -> None:
        """It failed; `example` says more than the kind does."""
        self._in_flight[flow] -= 1
        if interval := self._interval(flow, due):
            interval.failures[kind] = interval.failures.get(kind, 0) + 1
        if kind not in self._known:
            self._known.add(kind)
            self._examples[kind] = example

    def tick(self, now: float) -> None:
        """An interval ends about now: note what is in flight."""
        for flow, count in self._in_flight.items():
            if interval := self._interval(flow, now):
                interval.in_flight = count

    def take(self) -> Samples:
        """What is new since this was last called."""
        noted = [
            Noted(segment, flow, number, interval) for (segment, number, flow), interval in self._new.items()
        ]
        samples = Samples(noted, self._examples)
        self._new, self._examples = {}, {}
        return samples

    def _interval(self, flow: str, at: float) -> Interval | None:
        place = self._timeline.place(at)
        if place is None:
            return None
        key = (*place, flow)
        interval = self._new.get(key)
        if interval is None:
            interval = self._new[key] = Interval(failures={}, clocks={})
        return interval


class Total:
    """What all processes have noted, added up: by segment, then by flow, a row of intervals."""

    def __init__(self, timeline: Timeline, flows: Iterable[str]) -> None:
        self.examples: dict[str, str] = {}
        counts = [-int(-segment.seconds // timeline.interval) for segment in timeline.segments]
        self.segments: list[dict[str, list[Interval]]] = [
            {flow: [Interval(failures={}, clocks={}) for _ in range(count)] for flow in flows}
            for count in counts
        ]

    def add(self, samples: Samples) -> None:
        """Add what one process has sent."""
        for kind, example in samples.examples.items():
            self.examples.setdefault(kind, example)
        for noted in samples.noted:
            intervals = self.segments[noted.segment][noted.flow]
            _add(intervals[min(noted.number, len(intervals) - 1)], noted.interval)


def _add(total: Interval, more: Interval) -> None:
    total.sent += more.sent
    total.done += more.done
    total.items += more.items
    total.tokens += more.tokens
    total.in_flight += more.in_flight
    for kind, count in more.failures.items():
        total.failures[kind] = total.failures.get(kind, 0) + count
    for clock, counts in more.clocks.items():
        into = total.clocks.setdefault(clock, {})
        for number, count in counts.items():
            into[number] = into.get(number, 0) + count
