"""What a run leaves behind: the shape of run.json, which reports, comparisons and gates read."""

from pathlib import Path
from typing import Literal

import msgspec

from loadtests.histogram import Counts

VERSION = 1

Clock = Literal["total", "service", "router", "queue", "inference", "overhead"]
"""`total`: until the reply was in, from the moment the request was due (open loop) or sent (closed loop).
`service`: the same from the moment it was sent. The others are what the server says of itself, in its
timing headers: all its time, and the three parts of it."""

Limit = Literal["server", "harness", "range", "replies"]
"""What kept a search from a higher rate: `range` is the most that it was allowed to try; with `replies` too
few came, in as long as it was allowed to try one rate, to tell whether that holds."""

WRONG = "wrong: "
"""How the kinds of failure begin that the checks found: a 200 with something else than what was asked for."""
UNSENT = "not sent"
"""The kind of a request that was due and never sent: too many were in flight already."""


class Interval(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One flow during one interval.

    `sent` counts the requests due in it (sent in it, in a closed loop). `clocks`, of good replies alone, and
    `failures`, by kind, are of these, whenever they ended. `done`, `items` and `tokens` count what was
    answered well in it, whenever it was sent. `in_flight` is how many had no answer at its end.
    """

    sent: int = 0
    done: int = 0
    items: int = 0
    tokens: int = 0
    in_flight: int = 0
    failures: dict[str, int] = {}
    clocks: dict[Clock, Counts] = {}


class Segment(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a run under one load: requests a second in an open loop, users in a closed one.

    The load goes from the first value to the second in a straight line. The first `settle` seconds of
    `seconds` are not part of what is measured.
    """

    name: str
    seconds: float
    settle: float = 0.0
    rate: tuple[float, float] | None = None
    users: tuple[int, int] | None = None


class Process(msgspec.Struct, kw_only=True):
    """One process of the harness in one segment: `cpu` is its share of one core, `lag` (seconds) how late its
    event loop was (99th percentile), `late` how late it sent what was due (99th percentile; 0 in a closed
    loop)."""

    name: str
    cpu: float
    lag: float
    late: float


class Measured(msgspec.Struct, kw_only=True):
    """One segment, done.

    `began` is in seconds since the run began. `intervals` are of `interval` seconds each, by flow, those that
    began before `segment.settle` included. `machine_cpu` is the share of all processors of the harness's
    machine that was busy meanwhile, with whatever, or given to others (None: not known).
    """

    segment: Segment
    began: float
    interval: float
    intervals: dict[str, list[Interval]]
    processes: list[Process]
    machine_cpu: float | None = None


class Series(msgspec.Struct, kw_only=True):
    """A metric of the server over the run: `at` in seconds since the run began, `values` in `unit`.

    `panel` groups those that are drawn together, such as "queue".
    """

    panel: str
    name: str
    unit: str
    at: list[float]
    values: list[float]


class Probe(msgspec.Struct, kw_only=True):
    """One rate that the search for the capacity has tried: `segments` are indexes into those of the run."""

    rate: float
    verdict: Literal["holds", "fails", "unclear"]
    segments: list[int]
    why: str = ""


class Capacity(msgspec.Struct, kw_only=True):
    """What the search found: `rate` (requests a second, 0 for none) held the objective, `fails_at` did not
    (None: no rate that was tried failed). `confirmed` of `tries` further probes at `rate` held."""

    objective: str
    rate: float
    fails_at: float | None
    confirmed: int
    tries: int
    probes: list[Probe]
    limited_by: Limit = "server"


class Idle(msgspec.Struct, kw_only=True):
    """A flow before the load: one request at a time. Seconds, and tokens of one request."""

    requests: int
    p50: float
    p99: float
    tokens: float


class Golden(msgspec.Struct, kw_only=True):
    """How replies were held against vectors known to be right.

    `source` says where these came from. `complaints` are what was wrong before the load began, such as two
    tasks with the same vectors.
    """

    source: str
    compared: int
    complaints: list[str] = []


class Run(msgspec.Struct, kw_only=True):
    """One run. `target` is what was asked, by pool where they differ ("" for all)."""

    version: int = VERSION
    name: str
    command: str
    scenario: str
    about: str
    shape: str
    loop: Literal["open", "closed"]
    dialect: str
    target: dict[str, str]
    seed: str
    began: str
    seconds: float
    machine: str
    revision: str
    golden: Golden
    idle: dict[str, Idle] = {}
    segments: list[Measured]
    series: list[Series] = []
    capacity: Capacity | None = None
    notes: list[str] = []


def wrong(run: Run) -> int:
    """How many replies of the whole run, settling included, were not what was asked for."""
    return sum(
        count
        for measured in run.segments
        for intervals in measured.intervals.values()
        for interval in intervals
        for kind, count in interval.failures.items()
        if kind.startswith(WRONG)
    )


def write(run: Run, path: Path) -> None:
    """As JSON."""
    path.write_bytes(msgspec.json.encode(run) + b"\n")


def read(path: Path) -> Run:
    """From JSON, in a file or in the folder of a run. Raises `ValueError` that says what to do."""
    file = path / "run.json" if path.is_dir() else path
    try:
        run = msgspec.json.decode(file.read_bytes(), type=Run)
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read ({error.strerror}): name a run's folder or its run.json"
        ) from None
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} is not a run of `python -m loadtests`: {error}") from None
    if run.version != VERSION:
        raise ValueError(f"{file} has version {run.version} of the format, this reads {VERSION}")
    return run
