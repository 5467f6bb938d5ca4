"""Sample runs: of a simulated queue, and made of single intervals."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from triptych.loadtests.histogram import GROWTH, LEAST_SECONDS, Counts, bucket, merged
from triptych.loadtests.results import (
    Capacity,
    Clock,
    Golden,
    Idle,
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
"""Shares of the requests. One of `indexing` has 16 inputs, and is slower."""
OBJECTIVE = "p99=250ms,failures=0.1%"


def constant(rate: float = 200.0, seconds: float = 60.0, settle: float = 5.0) -> Segment:
    return Segment(name="steady", seconds=seconds, settle=settle, rate=(rate, rate))


def steps(*rates: float, seconds: float = 30.0) -> list[Segment]:
    return [Segment(name=f"{rate:g}/s", seconds=seconds, settle=5.0, rate=(rate, rate)) for rate in rates]


def build(
    segments: Sequence[Segment],
    *,
    flows: Mapping[str, float] = FLOWS,
    interval: float = 1.0,
    failures: Mapping[str, float] | None = None,
    gap: float = 0.0,
    cpu: float = 0.3,
    seed: int = 1,
) -> Run:
    """`failures` are kinds and the share of requests that each takes; `gap` seconds pass between segments."""
    draw = np.random.default_rng(seed)
    measured, began = [], 0.0
    for segment in segments:
        measured.append(_measured(draw, segment, began, flows, interval, failures or {}, cpu))
        began += segment.seconds + gap
    return Run(
        name="sample",
        command="python -m loadtests run --scenario mix --rate 200",
        scenario="mix",
        about="What a search product does in a day, at once.",
        shape=f"{len(segments)} segments",
        loop="open",
        dialect="jina",
        target={"": "http://127.0.0.1:8080"},
        seed="8f2a",
        began="2026-01-31 12:00:00 +0000",
        seconds=began,
        machine="2 cores, 8 GiB",
        revision="4ae0c78",
        golden=Golden(source="the deployment itself, before the load", compared=512),
        idle={flow: Idle(requests=20, p50=0.011, p99=0.016, tokens=20.0) for flow in flows},
        segments=measured,
        series=_series(draw, began),
    )


def searched(gap: float = 1.0) -> Run:
    """A search that finds that 412 requests a second hold, and 440 do not."""
    probes = [(50, "holds"), (100, "holds"), (200, "holds"), (400, "holds"), (800, "fails"), (440, "fails")]
    probes += [(412, "holds")]
    segments = [
        Segment(name=f"probe {rate}/s", seconds=18.0, settle=3.0, rate=(rate, rate)) for rate, _ in probes
    ]
    run = build(segments, gap=gap)
    run.capacity = Capacity(
        objective=OBJECTIVE,
        rate=412.0,
        fails_at=440.0,
        confirmed=3,
        tries=3,
        probes=[
            Probe(rate=rate, verdict="holds" if verdict == "holds" else "fails", segments=[number])
            for number, (rate, verdict) in enumerate(probes)
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
    segment = Segment(name="steady", seconds=seconds or float(len(intervals)), settle=settle, rate=(10, 10))
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
    run.idle = {"query": Idle(requests=20, p50=0.01, p99=0.02, tokens=10)}
    return run


def _measured(
    draw: np.random.Generator,
    segment: Segment,
    began: float,
    flows: Mapping[str, float],
    interval: float,
    failures: Mapping[str, float],
    cpu: float,
) -> Measured:
    count = math.ceil(segment.seconds / interval)
    low, high = segment.rate or segment.users or (0.0, 0.0)
    backlog = 0.0
    intervals: dict[str, list[Interval]] = {flow: [] for flow in flows}
    for number in range(count):
        load = low + (high - low) * (number + 0.5) / count
        rate = load if segment.rate else min(LIMIT, load / 0.03)
        backlog = max(0.0, backlog + (rate - LIMIT) * interval)
        for flow, part in flows.items():
            sent = int(draw.poisson(rate * part * interval))
            answered = round(min(rate, LIMIT) * part * interval)
            intervals[flow].append(_interval(draw, flow, sent, answered, rate, backlog, failures))
    return Measured(
        segment=segment,
        began=began,
        interval=interval,
        intervals=intervals,
        processes=[Process(name="here", cpu=cpu, lag=0.0006, late=0.0009)],
        machine_cpu=0.55,
    )


def _interval(
    draw: np.random.Generator,
    flow: str,
    sent: int,
    answered: int,
    rate: float,
    backlog: float,
    failures: Mapping[str, float],
) -> Interval:
    failed = {kind: int(draw.binomial(sent, share)) for kind, share in failures.items()}
    good = max(0, sent - sum(failed.values()))
    busy = min(0.98, rate / LIMIT)
    items = 16 if flow.startswith("indexing") else 1
    inference = (0.008 + 0.002 * items) * draw.lognormal(0, 0.15, good)
    queue = draw.exponential(0.0015 * busy / (1 - busy) + 1e-4, good) + backlog / LIMIT
    overhead = 0.0008 * draw.lognormal(0, 0.3, good)
    router = inference + queue + overhead
    service = router + 0.0015 * draw.lognormal(0, 0.4, good)
    total = service + 0.0004 * draw.lognormal(0, 0.5, good)
    clocks: dict[Clock, Counts] = {
        "total": _counts(total),
        "service": _counts(service),
        "router": _counts(router),
        "queue": _counts(queue),
        "inference": _counts(inference),
        "overhead": _counts(overhead),
    }
    done = max(0, answered - sum(failed.values()))
    return Interval(
        sent=sent,
        done=done,
        items=done * items,
        tokens=done * items * (120 if items > 1 else 20),
        in_flight=round(rate * 0.02 + backlog),
        failures={kind: count for kind, count in failed.items() if count},
        clocks=clocks,
    )


def _counts(seconds: np.ndarray) -> Counts:
    numbers = np.ceil(np.log(np.maximum(seconds, LEAST_SECONDS) / LEAST_SECONDS) / math.log(GROWTH))
    return {
        int(number): int(count) for number, count in zip(*np.unique(numbers, return_counts=True), strict=True)
    }


def _series(draw: np.random.Generator, seconds: float) -> list[Series]:
    at = [float(second) for second in np.linspace(0.5, seconds - 0.5, min(600, int(seconds)))]
    wanted = [
        ("queue", "retrieval, interactive", "items", 12.0),
        ("queue", "retrieval, bulk", "items", 60.0),
        ("queue", "code, interactive", "items", 5.0),
        ("batch", "retrieval", "items a batch", 14.0),
        ("batch", "code", "items a batch", 3.0),
        ("engine", "retrieval", "s", 0.014),
        ("served", "retrieval", "tokens/s", 64_000.0),
        ("cpu", "router", "cores", 0.8),
        ("cpu", "worker 10.0.0.7:8101", "cores", 1.0),
    ]
    return [
        Series(panel=panel, name=name, unit=unit, at=at, values=_walk(draw, len(at), middle))
        for panel, name, unit, middle in wanted
    ]


def _walk(draw: np.random.Generator, count: int, middle: float) -> list[float]:
    values = [middle]
    for step in draw.normal(0, 0.08 * middle, max(0, count - 1)):
        values.append(max(0.0, values[-1] + float(step) + 0.1 * (middle - values[-1])))
    assert all(math.isfinite(before + after) for before, after in pairwise(values))
    return values[:count]
