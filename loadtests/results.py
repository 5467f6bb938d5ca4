"""The shape of run.json: what a run measured. The report, `compare` and `gate` read it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from triptych.loadtests.histogram import Count, Counts, merged

VERSION = 3

Clock = Literal["total", "service", "router", "queue", "inference", "overhead"]
"""`total` runs from the moment a request was due until the reply was in; `service` from the moment it was
sent. The others come from the server's timing headers: `router` is its whole time, of which `queue`,
`inference` and `overhead` are parts."""

Limit = Literal["server", "harness", "range", "replies"]
"""What kept a search from a higher rate. `range`: the highest rate allowed was tried. `replies`: one try, as
long as allowed, brought too few replies for a verdict."""

Verdict = Literal["holds", "fails", "unclear"]

WRONG = "wrong: "
"""Prefix of the kinds of failure that the checks find: status 200 with a wrong result."""
UNSENT = "not sent"
"""Kind of failure: the request was due, but too many others were in flight."""


class Interval(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One flow in one interval of time.

    `sent` counts requests due in it. `clocks` (times of good replies) and `failures` (by kind) belong to
    these requests, whenever they ended. `done`, `items` and `tokens` count good replies that came in it,
    whenever they were sent. `in_flight` requests had no reply at its end.
    """

    sent: Count = 0
    done: Count = 0
    items: Count = 0
    tokens: Count = 0
    in_flight: Count = 0
    failures: dict[str, Count] = {}
    clocks: dict[Clock, Counts] = {}

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def add(self, more: "Interval") -> None:
        """Add what was recorded elsewhere for the same flow and time."""
        for name in ("sent", "done", "items", "tokens", "in_flight"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        for kind, count in more.failures.items():
            self.failures[kind] = self.failures.get(kind, 0) + count
        for clock, counts in more.clocks.items():
            self.clocks[clock] = merged([self.clocks.get(clock, {}), counts])


class Segment(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a run under one load: `rate` requests per second. The first `settle` of `seconds` do not
    count."""

    name: str
    seconds: float
    settle: float = 0.0
    rate: float


class Process(msgspec.Struct, kw_only=True):
    """One process of the harness in one segment: CPU as a share of a core, how `late` it sent requests in
    seconds (p99), and the busy share of its machine's processors, other programs and stolen time included."""

    name: str
    cpu: float
    late: float
    machine_cpu: float


class Measured(msgspec.Struct, kw_only=True):
    """The result of one segment, which `began` so many seconds after the run. `intervals`, by flow, last
    `interval` seconds each, settling included."""

    segment: Segment
    began: float
    interval: float
    intervals: dict[str, list[Interval]]
    processes: list[Process]


class Series(msgspec.Struct, kw_only=True):
    """A metric of the server: `at` in seconds since the start of the run, `values` in `unit`. Series with the
    same `panel` are drawn together."""

    panel: str
    name: str
    unit: str
    at: list[float]
    values: list[float]


class Probe(msgspec.Struct, kw_only=True):
    """One rate tried by a search. `segments` are indexes into the run's segments."""

    rate: float
    verdict: Verdict
    segments: list[int]
    why: str = ""


class Capacity(msgspec.Struct, kw_only=True):
    """The result of a search, in requests per second: `rate` met the objective (0: no rate did), `fails_at`
    did not (None: every rate did). `confirmed` of `tries` repetitions at `rate` held."""

    objective: str
    rate: float
    fails_at: float | None
    confirmed: int
    tries: int
    probes: list[Probe]
    limited_by: Limit = "server"


class Golden(msgspec.Struct, kw_only=True):
    """The check against known vectors: their source, the number of comparisons, and what was wrong with the
    vectors before the load, such as two tasks with the same ones."""

    source: str
    compared: int
    complaints: list[str] = []


class Run(msgspec.Struct, kw_only=True):
    """One run. `target` maps pools ("" for all) to addresses."""

    version: int = VERSION
    name: str
    command: str
    scenario: str
    about: str
    shape: str
    dialect: str
    target: dict[str, str]
    seed: str
    began: str
    seconds: float
    machine: str
    revision: str
    golden: Golden
    segments: list[Measured]
    series: list[Series] = []
    capacity: Capacity | None = None
    notes: list[str] = []


class _Versioned(msgspec.Struct):
    version: int = VERSION


def all_intervals(segments: Iterable[Measured]) -> Iterator[tuple[str, Interval]]:
    """Every interval with its flow, settling included."""
    for measured in segments:
        for flow, intervals in measured.intervals.items():
            yield from ((flow, interval) for interval in intervals)


def failure_counts(segments: Iterable[Measured]) -> dict[str, Counter[str]]:
    """Failures, settling included, by kind and flow; the most frequent kind first."""
    found: dict[str, Counter[str]] = {}
    for flow, interval in all_intervals(segments):
        for kind, count in interval.failures.items():
            found.setdefault(kind, Counter())[flow] += count
    return dict(sorted(found.items(), key=lambda pair: -pair[1].total()))


def wrong(segments: Iterable[Measured]) -> int:
    """Number of replies that failed a check, settling included."""
    return sum(
        by_flow.total() for kind, by_flow in failure_counts(segments).items() if kind.startswith(WRONG)
    )


def failed_checks(run: Run) -> int:
    """Number of wrong replies, and of complaints about the vectors before the load."""
    return wrong(run.segments) + len(run.golden.complaints)


def held(run: Run) -> list[Measured]:
    """The segments in which the result of a search held."""
    capacity = run.capacity
    probes = [probe for probe in capacity.probes if probe.rate == capacity.rate] if capacity else []
    return [run.segments[place] for probe in probes if probe.verdict == "holds" for place in probe.segments]


def read(path: Path) -> Run:
    """Read a run from a file, or from the run.json of a folder. Raises `ValueError` that says what to do."""
    file = path / "run.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
        if (version := msgspec.json.decode(data, type=_Versioned).version) != VERSION:
            raise ValueError(f"{file}: format version {version}; this program reads {VERSION}")
        return msgspec.json.decode(data, type=Run)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; give the folder of a run or its run.json") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: not a run of `triptych loadtest`: {error}") from None
