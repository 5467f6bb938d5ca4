"""Sample runs: of a pretended server, and made of single intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from triptych.loadtests.histogram import bucket, merged
from triptych.loadtests.results import (
    Capacity,
    Clock,
    Golden,
    Interval,
    Measured,
    Probe,
    Process,
    Run,
    Segment,
    Series,
)

# Requests a second that the pretended server can do.
LIMIT = 430.0
FLOWS: dict[str, float] = {"query": 0.7, "indexing": 0.3}
"""Shares of the requests. One of `indexing` has 16 inputs."""
PARTS: dict[Clock, float] = {"overhead": 0.001, "queue": 0.002, "inference": 0.01}
OBJECTIVE = "p99=250ms,failures=0.1%"


def constant(rate: float = 200.0, seconds: float = 60.0, settle: float = 5.0) -> Segment:
    return Segment(name="steady", seconds=seconds, settle=settle, rate=rate)


def steps(*rates: float, seconds: float = 30.0) -> list[Segment]:
    return [Segment(name=f"{rate:g}/s", seconds=seconds, settle=5.0, rate=rate) for rate in rates]


def build(
    segments: Sequence[Segment],
    *,
    flows: Mapping[str, float] = FLOWS,
    failures: Mapping[str, float] | None = None,
    cpu: float = 0.3,
) -> Run:
    """`failures` are kinds and the share of requests that each takes."""
    draw = np.random.default_rng(1)
    done, began = [], 0.0
    for segment in segments:
        intervals = {
            flow: [
                _interval(draw, flow, segment.rate * part, segment.rate / LIMIT, failures or {})
                for _ in range(math.ceil(segment.seconds))
            ]
            for flow, part in flows.items()
        }
        one = Measured(segment=segment, began=began, interval=1.0, intervals=intervals, processes=[])
        one.processes.append(Process(name="here", cpu=cpu, late=0.0009, machine_cpu=0.55))
        done.append(one)
        began += segment.seconds
    at = [float(second) for second in range(int(began))]
    panels = (("queue", "items"), ("batch", "items a batch"), ("engine", "s"), ("served", "tokens/s"))
    return Run(
        name="sample",
        command="python -m loadtests run --scenario mix --rate 200",
        scenario="mix",
        about="What a search product does in a day, at once.",
        shape=f"{len(segments)} segments",
        dialect="jina",
        target={"": "http://127.0.0.1:8080"},
        seed="8f2a",
        began="2026-01-31 12:00:00 +0000",
        seconds=began,
        machine="2 cores, 8 GiB",
        revision="4ae0c78",
        golden=Golden(source="the deployment itself, before the load", compared=512),
        segments=done,
        series=[
            Series(panel=panel, name=pool, unit=unit, at=at, values=[second % 7 for second in at])
            for panel, unit in panels
            for pool in ("retrieval", "code")
        ],
    )


def searched() -> Run:
    """A search that finds that 412 requests a second hold, and 440 do not."""
    rates = [50, 100, 200, 400, 800, 440, 412]
    segments = [Segment(name=f"probe {rate}/s", seconds=18.0, settle=3.0, rate=rate) for rate in rates]
    run = build(segments)
    run.capacity = Capacity(
        objective=OBJECTIVE,
        rate=412.0,
        fails_at=440.0,
        confirmed=3,
        tries=3,
        probes=[
            Probe(rate=rate, verdict="holds" if rate <= 412 else "fails", segments=[number])
            for number, rate in enumerate(rates)
        ],
    )
    return run


def interval(
    times: Sequence[float] = (), *, sent: int | None = None, failures: int = 0, **counts: int
) -> Interval:
    """An interval with replies of these times."""
    buckets = merged({bucket(time): 1} for time in times)
    return Interval(
        sent=len(times) + failures if sent is None else sent,
        done=counts.pop("done", len(times)),
        failures={"HTTP 503": failures} if failures else {},
        clocks={"total": buckets} if buckets else {},
        **counts,
    )


def measured(
    intervals: Sequence[Interval],
    *,
    settle: float = 0.0,
    seconds: float | None = None,
    **flows: list[Interval],
) -> Measured:
    """A segment of such intervals, of one second each."""
    segment = Segment(name="steady", seconds=seconds or float(len(intervals)), settle=settle, rate=10)
    named = {"query": list(intervals), **flows}
    return Measured(segment=segment, began=0.0, interval=1.0, intervals=named, processes=[])


def steady(seconds: float = 0.1, failures: int = 0, sent: int | None = None) -> Measured:
    """50 replies per second, around `seconds`."""
    times = [seconds * (0.5 + number / 50) for number in range(50)]
    return measured([interval(times, failures=failures, sent=sent)] * 12)


def run_of(*segments: Measured) -> Run:
    """A run of these segments."""
    run = build([constant(seconds=10)], flows={"query": 1.0})
    run.segments = list(segments)
    return run


def _interval(
    draw: np.random.Generator, flow: str, rate: float, busy: float, failures: Mapping[str, float]
) -> Interval:
    sent = int(draw.poisson(rate))
    failed = {kind: count for kind, share in failures.items() if (count := int(draw.binomial(sent, share)))}
    good = max(0, sent - sum(failed.values()))
    parts = {clock: mean * (1 + busy) * draw.lognormal(0, 0.3, good) for clock, mean in PARTS.items()}
    router = sum(parts.values(), np.zeros(good))
    times = parts | {"router": router, "service": router + 0.0015, "total": router + 0.002}
    done = round(good * min(1.0, 1 / busy)) if busy else 0
    items = 16 if flow.startswith("indexing") else 1
    return Interval(
        sent=sent,
        done=done,
        items=done * items,
        tokens=done * items * 20,
        in_flight=round(rate * 0.02),
        failures=failed,
        clocks={clock: merged({bucket(float(one)): 1} for one in its) for clock, its in times.items()},
    )
