"""Records the requests of one process by flow and interval, and adds up what all processes recorded."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec

from triptych.loadtests.histogram import add
from triptych.loadtests.results import Clock, Interval, Segment


class Samples(msgspec.Struct, tag=True):
    """What a process recorded since its last such message, by segment, interval and flow; the first says that
    the process is ready. `examples`: one of each kind of failure."""

    noted: list[tuple[int, int, str, Interval]]
    examples: dict[str, str]


class Timeline:
    """Segments in sequence, cut into intervals of `interval` seconds."""

    def __init__(self, segments: Sequence[Segment], interval: float) -> None:
        self.segments = tuple(segments)
        self.interval = interval
        *self.begins, self.seconds = accumulate((segment.seconds for segment in segments), initial=0.0)

    def place(self, at: float) -> tuple[int, int] | None:
        """The segment and interval at `at` seconds from the start; None after the end."""
        if at >= self.seconds:
            return None
        number = max(0, bisect_right(self.begins, at) - 1)
        return number, max(0, int((at - self.begins[number]) / self.interval))


def interval_for(segments: Iterable[Segment]) -> float:
    """Seconds: a twentieth of the shortest segment, within 0.25 to 1, and at most 600 intervals."""
    lengths = [segment.seconds for segment in segments]
    return max(0.25, min(1.0, min(lengths) / 20), sum(lengths) / 600)


class Recorder:
    """Records requests. Times are in seconds since the timeline's start."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._new: dict[tuple[int, int, str], Interval] = {}
        self._in_flight: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return self._in_flight.total()

    def sent(self, flow: str, due: float) -> None:
        """A request was due."""
        self._in_flight[flow] += 1
        self._interval(flow, due).sent += 1

    def answered(
        self, flow: str, due: float, ended: float, items: int, tokens: int, clocks: Mapping[Clock, float]
    ) -> None:
        """It was answered well; `clocks` in seconds."""
        self._in_flight[flow] -= 1
        times = self._interval(flow, due).clocks
        for clock, seconds in clocks.items():
            add(times.setdefault(clock, {}), seconds)
        interval = self._interval(flow, ended)
        interval.done += 1
        interval.items += items
        interval.tokens += tokens

    def failed(self, flow: str, due: float, kind: str, example: str) -> None:
        """It failed; `example` says more than `kind`."""
        self._in_flight[flow] -= 1
        failures = self._interval(flow, due).failures
        failures[kind] = failures.get(kind, 0) + 1
        self._examples.setdefault(kind, example)

    def tick(self, now: float) -> None:
        """An interval ends: record what is in flight."""
        for flow, count in self._in_flight.items():
            self._interval(flow, now).in_flight = count

    def take(self) -> Samples:
        """What is new since the last call, and all examples."""
        noted, self._new = [(*place, interval) for place, interval in self._new.items()], {}
        return Samples(noted, self._examples)

    def _interval(self, flow: str, at: float) -> Interval:
        place = self._timeline.place(at)
        if place is None:
            # What comes after the end does not count.
            return Interval()
        return self._new.setdefault((*place, flow), Interval())


class Total:
    """The sum of all processes' records: by segment and flow, a row of intervals."""

    def __init__(self, timeline: Timeline, flows: Sequence[str]) -> None:
        self.timeline = timeline
        self.examples: dict[str, str] = {}
        counts = [-int(-segment.seconds // timeline.interval) for segment in timeline.segments]
        self.segments: list[dict[str, list[Interval]]] = [
            {flow: [Interval() for _ in range(count)] for flow in flows} for count in counts
        ]

    def add(self, samples: Samples) -> None:
        """Add what one process recorded."""
        self.examples = samples.examples | self.examples
        for segment, number, flow, interval in samples.noted:
            intervals = self.segments[segment][flow]
            intervals[min(number, len(intervals) - 1)].add(interval)
