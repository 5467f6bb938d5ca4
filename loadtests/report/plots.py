"""The figures of a run: by load, over time, of the server, by flow, and where the time goes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.loadtests import estimates
from triptych.loadtests.report import figures as draw
from triptych.loadtests.report import tables
from triptych.loadtests.report.cuts import Point, latency, middle, moments
from triptych.loadtests.report.figures import Chart, Column
from triptych.loadtests.report.words import duration
from triptych.loadtests.results import WRONG, Clock, Interval, Measured, Run, Series, failure_counts

# Fewer loads make no curve.
LEAST_POINTS = 3
MOST_LINES = 8
MOST_KINDS = 6
MOST_FLOW_MOMENTS = 120
BAR_HEIGHT = 0.32


class Line(NamedTuple):
    """Values over time, and how matplotlib draws them."""

    label: str
    at: Column
    values: Column
    style: Mapping[str, Any] = {}


def by_load(run: Run, points: Sequence[Point], limit: float | None) -> list[Chart]:
    """Latency and answered requests against the load; nothing below three loads. `limit`: of the p99, in
    s."""
    if len(points) < LEAST_POINTS:
        return []
    return [_latency_by_load(run, points, limit), _answered_by_load(points)]


def over_time(run: Run) -> list[Chart]:
    """Latency, load, failures and requests in flight."""
    seen = moments(run)
    at = np.array([middle(one) for one in seen])
    # The server's clock is often so near that a solid line would hide the other.
    times: list[tuple[str, Clock, float, dict[str, str]]] = [
        ("p99", "total", 0.99, {"color": draw.ACCENT}),
        ("p50", "total", 0.5, {"color": draw.SOFT}),
        ("p99, server's clock", "router", 0.99, {"color": draw.ORANGE, "ls": "--"}),
        ("p50, server's clock", "router", 0.5, {"color": draw.TEAL, "ls": "--"}),
    ]
    latencies = [
        Line(label, at, np.array([latency([one], part, clock) for one in seen]), style)
        for label, clock, part, style in times
    ]
    load = [
        Line("due", at, _per_second(seen, lambda one: one.sent), {"color": draw.INK}),
        Line("answered well", at, _per_second(seen, lambda one: one.done), {"color": draw.ACCENT}),
    ]
    charts = [_lines(run, "Latency", "s", latencies), _lines(run, "Load", "requests/s", load)]
    if kinds := list(failure_counts(run)):
        charts.append(_failures_over_time(run, seen, kinds))
    in_flight = np.array([sum(row[-1].in_flight for row in one.intervals.values()) for one in seen])
    return [*charts, _lines(run, "In flight", "requests", [Line("", at, in_flight)])]


def of_server(run: Run) -> list[Chart]:
    """The server's own metrics, one chart for each panel and unit."""
    panels: dict[tuple[str, str], list[Series]] = {}
    for series in run.series:
        if series.at:
            panels.setdefault((series.panel, series.unit), []).append(series)
    charts = []
    for (panel, unit), every in panels.items():
        highest = sorted(every, key=lambda series: -max(series.values))[:MOST_LINES]
        # In their own order, so that colours agree between panels.
        shown = [series for series in every if series in highest]
        lines = [Line(series.name, np.array(series.at), np.array(series.values)) for series in shown]
        hidden = len(every) - len(shown)
        note = f"{hidden} lower lines are not drawn." if hidden else ""
        charts.append(_lines(run, panel.capitalize(), unit, lines, note))
    return charts


def by_flow(run: Run, points: Sequence[Point]) -> list[Chart]:
    """Latency of each flow on a common scale, against the load or, with few loads, over time."""
    flows = list(dict.fromkeys(flow for measured in run.segments for flow in measured.intervals))
    if len(flows) < 2:
        return []
    curve = len(points) >= LEAST_POINTS
    pieces: list[tuple[float, Sequence[Measured]]]
    if curve:
        pieces = [(point.load, point.measured) for point in points]
    else:
        pieces = [(middle(one), [one]) for one in moments(run, MOST_FLOW_MOMENTS)]
    where = np.array([at for at, _ in pieces])
    found = {
        flow: [np.array([latency(its, part, flow=flow) for _, its in pieces]) for part in (0.5, 0.99)]
        for flow in flows
    }
    charts = []
    for flow, (p50, p99) in found.items():
        axes = draw.new_axes()
        axes.plot(where, p99, color=draw.ACCENT, label="p99")
        axes.plot(where, p50, color=draw.SOFT, label="p50")
        draw.latency_axis(axes, [column for columns in found.values() for column in columns])
        if curve:
            axes.set_xlim(left=0)
        else:
            draw.time_axis(axes, run)
        charts.append(draw.finish(axes, flow, "requests/s" if curve else ""))
    return charts


def time_spent(run: Run, points: Sequence[Point]) -> list[Chart]:
    """The parts of the mean latency under each load."""
    pieces = {measured.segment.name: [measured] for measured in run.segments}
    if len(points) >= LEAST_POINTS:
        pieces = {point.label: point.measured for point in points}
    spent = {label: parts for label, its in pieces.items() if (parts := tables.spent(its))}
    if not spent:
        return []
    axes = draw.new_axes(0.9 + BAR_HEIGHT * len(spent))
    # Shares of each mean, which differ too much for one axis of seconds.
    totals = np.array([sum(parts.values()) for parts in spent.values()])
    labels = [f"{label}: {duration(total)}" for label, total in zip(spent, totals, strict=True)]
    base = np.zeros(len(spent))
    for name in dict.fromkeys(name for parts in spent.values() for name in parts):
        width = 100 * np.array([parts.get(name, 0.0) for parts in spent.values()]) / totals
        axes.barh(range(len(spent)), width, left=base, height=0.7, label=name)
        base += width
    axes.set_yticks(range(len(spent)), labels, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    return [draw.finish(axes, "Parts of the mean latency", "%")]


def _latency_by_load(run: Run, points: Sequence[Point], limit: float | None) -> Chart:
    where = np.array([point.load for point in points])
    p50, p90 = (np.array([latency(point.measured, part) for point in points]) for part in (0.5, 0.9))
    nothing = (math.nan, math.nan, math.nan)
    found = [estimates.latency(point.measured, 0.99) or nothing for point in points]
    p99, low, high = np.array(found, float).T
    axes = draw.new_axes()
    axes.plot(where, p99, color=draw.ACCENT, lw=2, label="p99")
    axes.fill_between(where, low, high, color=draw.ACCENT, alpha=0.18, lw=0, label="95 % interval of p99")
    axes.plot(where, p90, color=draw.ORANGE, label="p90")
    axes.plot(where, p50, color=draw.SOFT, label="p50")
    if limit is not None:
        axes.axhline(limit, color=draw.RED, ls="--", lw=1.2, label=f"limit of p99: {duration(limit)}")
    draw.latency_axis(axes, [p50, p99, high, np.array([limit or math.nan])])
    axes.set_xlim(left=0)
    note = ""
    for point, at, height in zip(points, where, p99, strict=True):
        face = "none" if point.verdict in ("fails", "unclear") else draw.ACCENT
        axes.plot([at], [height], "o", ms=4.5, mec=draw.ACCENT, mfc=face, zorder=3)
    if run.capacity is not None:
        note = "Filled: holds. Hollow: does not. Dotted: the rate that holds."
        axes.axvline(run.capacity.rate, color=draw.INK, lw=1, ls=":")
    return draw.finish(axes, "Latency against load", "requests/s", note)


def _answered_by_load(points: Sequence[Point]) -> Chart:
    where = np.array([estimates.rate(point.measured, "sent").value for point in points])
    answered = np.array([estimates.rate(point.measured, "done").value for point in points])
    axes = draw.new_axes()
    axes.plot([0, where.max()], [0, where.max()], color=draw.INK, ls="--", lw=1, label="all that was due")
    order = np.argsort(where)
    axes.plot(where[order], answered[order], "o-", color=draw.ACCENT, lw=2, ms=4.5, label="answered well")
    axes.set_xlim(left=0)
    draw.amount_axis(axes)
    return draw.finish(axes, "Answered against load", "requests/s")


def _lines(run: Run, title: str, unit: str, lines: Sequence[Line], note: str = "") -> Chart:
    """Lines over the time of the run. Those without a value are left out."""
    axes = draw.new_axes()
    shown = [line for line in lines if np.isfinite(line.values).any()]
    for line in shown:
        axes.plot(line.at, line.values, lw=1.3, label=line.label, **line.style)
    draw.time_axis(axes, run)
    if unit == "s":
        draw.latency_axis(axes, [line.values for line in shown])
    else:
        draw.amount_axis(axes)
    return draw.finish(axes, title, "" if unit == "s" else unit, note)


def _failures_over_time(run: Run, seen: Sequence[Measured], kinds: Sequence[str]) -> Chart:
    def failed(kind: str) -> Column:
        return _per_second(seen, lambda one: one.failures.get(kind, 0))

    # Wrong replies first: they matter most.
    kinds = sorted(kinds, key=lambda kind: not kind.startswith(WRONG))
    columns = [failed(kind) for kind in kinds]
    if len(kinds) > MOST_KINDS:
        last = MOST_KINDS - 1
        columns[last:] = [sum(columns[last:], np.zeros(len(seen)))]
        kinds[last:] = [f"{len(kinds) - last} other kinds"]
    axes = draw.new_axes()
    axes.stackplot([middle(one) for one in seen], *columns, labels=kinds, colors=draw.REDS, lw=0)
    draw.time_axis(axes, run)
    draw.amount_axis(axes)
    return draw.finish(axes, "Failures", "requests/s")


def _per_second(seen: Sequence[Measured], count: Callable[[Interval], int]) -> Column:
    def rate(one: Measured) -> float:
        return sum(sum(map(count, row)) for row in estimates.counted([one])) / one.segment.seconds

    return np.array([rate(one) for one in seen])
