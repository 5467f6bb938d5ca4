"""Figures of a run, with confidence (pure). What counts are the whole intervals of a segment after its
`settle`."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from loadtests.confidence import FEWEST, Array, Z, percentile, quotient, share_of
from loadtests.confidence import Estimate as Estimate
from loadtests.histogram import merged
from loadtests.results import WRONG, Clock, Interval, Measured, Run

# The harness is taken for the bottleneck from here on.
BUSY = 0.9
# Of the whole machine, and what one process may take of a core to be no part of the reason.
FULL, MODEST = 0.9, 0.5
LATE_SECONDS, LATE_SHARE = 5e-3, 0.2
# A p99.9 of fewer is one reply.
ENOUGH_FOR_P999 = 1000


class Row(NamedTuple):
    """All figures of a flow ("" for all together) in a segment; rates are a second, latencies in seconds.

    None where nothing was counted; `p999` also where fewer than `ENOUGH_FOR_P999` replies were.
    """

    segment: str
    flow: str
    offered: Estimate
    throughput: Estimate
    items: Estimate
    tokens: Estimate
    p50: Estimate | None
    p90: Estimate | None
    p99: Estimate | None
    p999: Estimate | None
    failure_share: Estimate
    failures: dict[str, int]
    wrong: int


def rows(run: Run) -> list[Row]:
    """For each segment all flows together, where there are several, and each alone."""
    found = []
    for measured in run.segments:
        flows = list(measured.intervals)
        for flow in ["", *flows] if len(flows) > 1 else flows:
            found.append(_row([measured], flow))
    return found


def throughput(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Requests answered well a second."""
    return _rate(measured, flow, _done, _done)


def items_per_second(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Inputs of these a second."""
    return _rate(measured, flow, lambda its: its.items, _done)


def tokens_per_second(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Tokens of these a second, as the server counts them."""
    return _rate(measured, flow, lambda its: its.tokens, _done)


def offered(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Requests a second that were due (open loop) or sent (closed loop)."""
    return _rate(measured, flow, _sent, _sent)


def latency(
    measured: Sequence[Measured], share: float, flow: str | None = None, clock: Clock = "total"
) -> Estimate | None:
    """The `share` percentile (0 to 1) of good replies, in seconds; None where there was none."""
    return percentile(
        [
            merged(interval.clocks.get(clock, {}) for interval in together)
            for together in _intervals(measured, flow)
        ],
        share,
    )


def failure_share(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Failures, wrong replies among them, as a share of what was sent; 0 where nothing was."""
    if not sent(measured, flow):
        return Estimate(0.0, 0.0, 1.0)
    return share_of(_sums(measured, flow, _failed), _sums(measured, flow, _sent))


def answered_share(measured: Sequence[Measured], flow: str | None = None) -> Estimate | None:
    """Requests answered well, whenever they were sent, as a share of what was sent meanwhile; None where
    nothing was."""
    if not sent(measured, flow):
        return None
    return quotient(_sums(measured, flow, _done), _sums(measured, flow, _sent))


def failures(measured: Sequence[Measured], flow: str | None = None) -> dict[str, int]:
    """How many of each kind, the most frequent first."""
    found: dict[str, int] = {}
    for together in _intervals(measured, flow):
        for interval in together:
            for kind, count in interval.failures.items():
                found[kind] = found.get(kind, 0) + count
    return dict(sorted(found.items(), key=lambda kind: -kind[1]))


def wrong(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Replies that were not what was asked for."""
    return sum(count for kind, count in failures(measured, flow).items() if kind.startswith(WRONG))


def replies(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Good ones, of the requests that were due in the intervals that count."""
    its = (interval for together in _intervals(measured, flow) for interval in together)
    return sum(sum(interval.clocks.get("total", {}).values()) for interval in its)


def sent(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Requests that were due in the intervals that count."""
    return int(_sums(measured, flow, _sent).sum())


def bottleneck(measured: Sequence[Measured]) -> str | None:
    """Why the harness, and not the server, may be what limits; None where nothing says so.

    On a machine that is full it is late through no fault of its own, while it takes little of it.
    """
    for one in measured:
        middle = latency([one], 0.5)
        allowed = max(LATE_SECONDS, LATE_SHARE * middle.value if middle else 0.0)
        full = one.machine_cpu is not None and one.machine_cpu >= FULL
        for process in one.processes:
            if process.cpu >= BUSY:
                return f"{process.name} of the harness used {process.cpu:.0%} of a core"
            if full and process.cpu < MODEST:
                continue
            if process.late > allowed:
                return f"{process.name} of the harness sent {process.late * 1e3:.0f} ms late (p99)"
            if process.lag > allowed:
                return f"{process.name} of the harness ran {process.lag * 1e3:.0f} ms late (p99)"
    return None


def crowded(measured: Sequence[Measured]) -> str | None:
    """How late the harness was on a machine that was full with others; None where that was not so."""
    found = [
        (max(process.late, process.lag), one.machine_cpu)
        for one in measured
        for process in one.processes
        if one.machine_cpu is not None and one.machine_cpu >= FULL and process.cpu < BUSY
    ]
    if not found:
        return None
    late, busy = max(found)
    return (
        f"the harness's machine was {busy:.0%} busy, mostly with others: up to {late * 1e3:.0f} ms (p99) of "
        "the latencies are its own waiting for a processor"
    )


def _row(measured: Sequence[Measured], flow: str) -> Row:
    its = flow or None
    p50, p90, p99, p999 = (latency(measured, share, its) for share in (0.5, 0.9, 0.99, 0.999))
    return Row(
        segment=measured[0].segment.name,
        flow=flow,
        offered=offered(measured, its),
        throughput=throughput(measured, its),
        items=items_per_second(measured, its),
        tokens=tokens_per_second(measured, its),
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999 if replies(measured, its) >= ENOUGH_FOR_P999 else None,
        failure_share=failure_share(measured, its),
        failures=failures(measured, its),
        wrong=wrong(measured, its),
    )


def _intervals(measured: Sequence[Measured], flow: str | None) -> list[tuple[Interval, ...]]:
    """Those that count, each of all flows, or of the one that is named."""
    found: list[tuple[Interval, ...]] = []
    for one in measured:
        first = math.ceil(one.segment.settle / one.interval - 1e-9)
        last = max(first, math.floor(one.segment.seconds / one.interval + 1e-9))
        parts = [its[first:last] for name, its in one.intervals.items() if flow in (None, name)]
        found += zip(*parts, strict=True)
    return found


def _sent(interval: Interval) -> int:
    return interval.sent


def _done(interval: Interval) -> int:
    return interval.done


def _failed(interval: Interval) -> int:
    return sum(interval.failures.values())


def _sums(measured: Sequence[Measured], flow: str | None, count: Callable[[Interval], int]) -> Array:
    return np.array([sum(map(count, together)) for together in _intervals(measured, flow)], float)


def _rate(
    measured: Sequence[Measured],
    flow: str | None,
    count: Callable[[Interval], int],
    requests: Callable[[Interval], int],
) -> Estimate:
    """A second; the items and tokens of one of the `requests` come together."""
    counts = _sums(measured, flow, count)
    seconds = np.array([one.interval for one in measured for _ in _intervals([one], flow)])
    if not len(counts):
        return Estimate(0.0, 0.0, 0.0)
    if len(counts) >= FEWEST:
        return quotient(counts, seconds)
    value = float(counts.sum() / seconds.sum())
    independent = float(_sums(measured, flow, requests).sum())
    half = Z * value / math.sqrt(independent) if independent else 0.0
    return Estimate(value, max(0.0, value - half), value + half)
