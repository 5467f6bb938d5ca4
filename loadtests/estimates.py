"""Figures of a run with 95 % confidence intervals (pure).

What counts are the whole intervals of a segment after its `settle`. Replies that are near in time are not
independent: one slow step of an engine makes many of them slow. So intervals come from a bootstrap over
blocks of neighbouring intervals, joined with what independent replies would give, whichever is wider. With
fewer than `FEWEST` intervals there are no blocks to draw from, and the latter stands alone.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.histogram import GROWTH, merged, seconds_of
from loadtests.histogram import percentile as percentile_of
from loadtests.results import WRONG, Clock, Interval, Measured, Run

RESAMPLES = 400
FEWEST = 8
# Of the normal distribution, for 95 %.
Z = 1.96
# The harness is taken for the bottleneck from here on.
BUSY = 0.9
# Of the whole machine, and what one process may take of a core to be no part of the reason.
FULL, MODEST = 0.95, 0.5
LATE_SECONDS, LATE_SHARE = 5e-3, 0.2
# A p99.9 of fewer is one reply.
ENOUGH_FOR_P999 = 1000

Counts = NDArray[np.float64]


class Estimate(NamedTuple):
    """A figure, and between what it lies with 95 % confidence."""

    value: float
    low: float
    high: float


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
    return _rate(measured, flow, "done")


def items_per_second(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Inputs of these a second."""
    return _rate(measured, flow, "items")


def tokens_per_second(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Tokens of these a second, as the server counts them."""
    return _rate(measured, flow, "tokens")


def offered(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Requests a second that were due (open loop) or sent (closed loop)."""
    return _rate(measured, flow, "sent")


def latency(
    measured: Sequence[Measured], share: float, flow: str | None = None, clock: Clock = "total"
) -> Estimate | None:
    """The `share` percentile (0 to 1) of good replies, in seconds; None where there was none."""
    columns = [_columns(one, flow) for one in measured]
    intervals = [interval for its in columns for interval in its]
    counts = merged(interval.clocks.get(clock, {}) for interval in intervals)
    if not counts:
        return None
    low, high = _order_statistics(counts, share)
    if len(intervals) >= FEWEST:
        numbers = sorted(counts)
        column = {number: place for place, number in enumerate(numbers)}
        matrix = np.zeros((len(intervals), len(numbers)))
        for row, interval in enumerate(intervals):
            for number, count in interval.clocks.get(clock, {}).items():
                matrix[row, column[number]] = count
        cumulated = np.cumsum(_times_drawn(len(intervals)) @ matrix, axis=1)
        total = cumulated[:, -1]
        drawn = total > 0
        ranks = np.maximum(1, np.ceil(share * total[drawn] - 1e-9))
        places = (cumulated[drawn] >= ranks[:, None]).argmax(axis=1)
        times = np.array([seconds_of(number) for number in numbers])[places]
        low, high = min(low, float(np.quantile(times, 0.025))), max(high, float(np.quantile(times, 0.975)))
    value = percentile_of(counts, share)
    # A time stands for its bucket's middle, and may be anywhere in it.
    return Estimate(value, min(low, value) / GROWTH**0.5, max(high, value) * GROWTH**0.5)


def failure_share(measured: Sequence[Measured], flow: str | None = None) -> Estimate:
    """Failures, wrong replies among them, as a share of what was sent; 0 where nothing was."""
    intervals = [interval for one in measured for interval in _columns(one, flow)]
    sent = np.array([interval.sent for interval in intervals], float)
    failed = np.array([sum(interval.failures.values()) for interval in intervals], float)
    if not sent.sum():
        return Estimate(0.0, 0.0, 1.0)
    value = float(failed.sum() / sent.sum())
    low, high = _wilson(float(failed.sum()), float(sent.sum()))
    if len(intervals) >= FEWEST and failed.any():
        drawn = _times_drawn(len(intervals))
        shares = (drawn @ failed) / np.maximum(1, drawn @ sent)
        low, high = min(low, float(np.quantile(shares, 0.025))), max(high, float(np.quantile(shares, 0.975)))
    return Estimate(value, min(low, value), max(high, value))


def failures(measured: Sequence[Measured], flow: str | None = None) -> dict[str, int]:
    """How many of each kind, the most frequent first."""
    found: dict[str, int] = {}
    for one in measured:
        for interval in _columns(one, flow):
            for kind, count in interval.failures.items():
                found[kind] = found.get(kind, 0) + count
    return dict(sorted(found.items(), key=lambda kind: -kind[1]))


def wrong(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Replies that were not what was asked for."""
    return sum(count for kind, count in failures(measured, flow).items() if kind.startswith(WRONG))


def replies(measured: Sequence[Measured], flow: str | None = None) -> int:
    """Good ones, of the requests that were due in the intervals that count."""
    counts = (interval.clocks.get("total", {}) for one in measured for interval in _columns(one, flow))
    return sum(merged(counts).values())


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


def _columns(measured: Measured, flow: str | None) -> list[Interval]:
    """The intervals that count, all flows added up where none is named."""
    segment, interval = measured.segment, measured.interval
    first = math.ceil(segment.settle / interval - 1e-9)
    last = max(first, math.floor(segment.seconds / interval + 1e-9))
    if flow is not None:
        return measured.intervals.get(flow, [])[first:last]
    parts = [intervals[first:last] for intervals in measured.intervals.values()]
    return [_added(together) for together in zip(*parts, strict=True)]


def _added(intervals: Sequence[Interval]) -> Interval:
    if len(intervals) == 1:
        return intervals[0]
    kinds = dict.fromkeys(kind for interval in intervals for kind in interval.failures)
    clocks = dict.fromkeys(clock for interval in intervals for clock in interval.clocks)
    return Interval(
        sent=sum(interval.sent for interval in intervals),
        done=sum(interval.done for interval in intervals),
        items=sum(interval.items for interval in intervals),
        tokens=sum(interval.tokens for interval in intervals),
        in_flight=sum(interval.in_flight for interval in intervals),
        failures={kind: sum(interval.failures.get(kind, 0) for interval in intervals) for kind in kinds},
        clocks={clock: merged(interval.clocks.get(clock, {}) for interval in intervals) for clock in clocks},
    )


def _rate(measured: Sequence[Measured], flow: str | None, name: str) -> Estimate:
    counts, lengths = [], []
    for one in measured:
        its = [getattr(interval, name) for interval in _columns(one, flow)]
        counts += its
        lengths += [one.interval] * len(its)
    if not counts:
        return Estimate(0.0, 0.0, 0.0)
    column, seconds = np.array(counts, float), np.array(lengths)
    value = float(column.sum() / seconds.sum())
    if len(counts) < FEWEST:
        # As if they came independently of one another.
        half = Z * math.sqrt(float(column.sum())) / float(seconds.sum())
        return Estimate(value, max(0.0, value - half), value + half)
    drawn = _times_drawn(len(counts))
    rates = (drawn @ column) / (drawn @ seconds)
    return Estimate(
        value, min(value, float(np.quantile(rates, 0.025))), max(value, float(np.quantile(rates, 0.975)))
    )


@lru_cache(maxsize=64)
def _times_drawn(count: int) -> Counts:
    """How often each of `count` intervals is in each resample: (`RESAMPLES`, `count`).

    Blocks of about twice the cube root of `count`, which begin anywhere and go round at the end. The same
    each time.
    """
    length = max(2, round(2 * count ** (1 / 3)))
    blocks = math.ceil(count / length)
    starts = np.random.default_rng(count).integers(0, count, (RESAMPLES, blocks))
    places = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count] % count
    drawn = np.zeros((RESAMPLES, count))
    np.add.at(drawn, (np.arange(RESAMPLES)[:, None], places), 1)
    return drawn


def _order_statistics(counts: dict[int, int], share: float) -> tuple[float, float]:
    """Between which times the percentile of independent ones lies, by how many lie below it."""
    total = sum(counts.values())
    half = Z * math.sqrt(share * (1 - share) / total)
    return (
        percentile_of(counts, max(0.0, share - half)),
        percentile_of(counts, min(1.0, share + half)),
    )


def _wilson(count: float, total: float) -> tuple[float, float]:
    share, square = count / total, Z * Z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z * math.sqrt(share * (1 - share) / total + square / (4 * total * total)) / (1 + square / total)
    return max(0.0, middle - half), min(1.0, middle + half)
