"""The figures of a run, as SVG images: by load, over time, of the server, by flow, where the time goes."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from triptych.loadtests import estimates
from triptych.loadtests.report import tables
from triptych.loadtests.report.cuts import Point, latency, middle, moments
from triptych.loadtests.report.words import duration, number
from triptych.loadtests.results import WRONG, Clock, Measured, Run, all_intervals, failure_counts

# Fewer loads make no curve.
LEAST_POINTS = 3
MOST_LINES = 8
WIDTH, HEIGHT, LEGEND_LINE, BAR_HEIGHT = 6.4, 2.7, 0.17, 0.32
LEGEND_COLUMNS = 2
INK, GRID = "#59616b", "#dfe3e8"
ACCENT, SOFT, ORANGE, TEAL, RED = "#1f62c8", "#8fb4ea", "#d97706", "#0f8f7e", "#c9302c"
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Letters stay letters, and the same run gives the same page.
    "svg.fonttype": "none",
    "svg.hashsalt": "triptych",
}


class Chart(NamedTuple):
    """A figure for the page; `image` is a data URL."""

    title: str
    unit: str
    image: str
    note: str = ""


class Line(NamedTuple):
    """Values over time, and how matplotlib draws them."""

    label: str
    at: Sequence[float]
    values: Sequence[float]
    style: Mapping[str, Any] = {}


def by_load(run: Run, points: Sequence[Point], limit: float | None) -> list[Chart]:
    """Latency and answered requests against the load, from three loads on. `limit`: of the p99, in s."""
    if len(points) < LEAST_POINTS:
        return []
    return [_latency_by_load(run, points, limit), _answered_by_load(points)]


def over_time(run: Run) -> list[Chart]:
    """Latency, load, failures and requests in flight."""
    seen = moments(run)
    at = [middle(one) for one in seen]
    # The server's clock is often so near that a solid line would hide the other.
    times: list[tuple[str, Clock, float, dict[str, str]]] = [
        ("p99", "total", 0.99, {"color": ACCENT}),
        ("p50", "total", 0.5, {"color": SOFT}),
        ("p99, server's clock", "router", 0.99, {"color": ORANGE, "ls": "--"}),
        ("p50, server's clock", "router", 0.5, {"color": TEAL, "ls": "--"}),
    ]
    latencies = [
        Line(label, at, [latency([one], part, clock) for one in seen], style)
        for label, clock, part, style in times
    ]
    due, answered = ([estimates.rate([one], of).value for one in seen] for of in ("sent", "done"))
    load = [Line("due", at, due, {"color": INK}), Line("answered well", at, answered)]
    charts = [_lines(run, "Latency", "s", latencies), _lines(run, "Load", "requests/s", load)]
    # Wrong replies first: they matter most.
    if kinds := sorted(failure_counts(run.segments), key=lambda kind: not kind.startswith(WRONG)):
        failed = [Line(kind, at, [_failed(one, kind) for one in seen]) for kind in kinds]
        charts.append(_lines(run, "Failures", "requests/s", failed))
    in_flight = [sum(row[-1].in_flight for row in one.intervals.values()) for one in seen]
    return [*charts, _lines(run, "In flight", "requests", [Line("", at, in_flight)])]


def of_server(run: Run) -> list[Chart]:
    """The server's own metrics, one chart for each panel and unit."""
    panels: dict[tuple[str, str], list[Line]] = {}
    for one in run.series:
        if one.at:
            panels.setdefault((one.panel, one.unit), []).append(Line(one.name, one.at, one.values))
    return [_lines(run, panel.capitalize(), unit, lines) for (panel, unit), lines in panels.items()]


def by_flow(run: Run, points: Sequence[Point]) -> list[Chart]:
    """Latency of the flows beside each other, against the load or, with few loads, over time."""
    flows = list(dict.fromkeys(flow for measured in run.segments for flow in measured.intervals))
    if len(flows) < 2:
        return []
    curve = len(points) >= LEAST_POINTS
    pieces = points if curve else [Point(middle(one), [one]) for one in moments(run)]
    at = [piece.load for piece in pieces]
    charts = []
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        lines = [Line(flow, at, [latency(one.measured, part, flow=flow) for one in pieces]) for flow in flows]
        title = f"{name} by flow" + (", against requests/s" if curve else "")
        charts.append(_lines(None if curve else run, title, "s", lines))
    return charts


def time_spent(run: Run, points: Sequence[Point]) -> list[Chart]:
    """The parts of the mean latency under each load."""
    pieces = {measured.segment.name: [measured] for measured in run.segments}
    if len(points) >= LEAST_POINTS:
        pieces = {f"{number(point.load)} requests/s": point.measured for point in points}
    spent = {label: parts for label, measured in pieces.items() if (parts := tables.spent(measured))}
    if not spent:
        return []
    axes = _new_axes(0.9 + BAR_HEIGHT * len(spent))
    # Shares of each mean, which differ too much for one axis of seconds.
    totals = np.array([sum(parts.values()) for parts in spent.values()])
    base = np.zeros(len(spent))
    for name in dict.fromkeys(name for parts in spent.values() for name in parts):
        width = 100 * np.array([parts.get(name, 0.0) for parts in spent.values()]) / totals
        axes.barh(range(len(spent)), width, left=base, height=0.7, label=name)
        base += width
    labels = [f"{label}: {duration(total)}" for label, total in zip(spent, totals, strict=True)]
    axes.set_yticks(range(len(spent)), labels, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    return [_finish(axes, "Parts of the mean latency", "%")]


def _latency_by_load(run: Run, points: Sequence[Point], limit: float | None) -> Chart:
    where = [point.load for point in points]
    nothing = (math.nan, math.nan, math.nan)
    found = [estimates.latency(point.measured, 0.99) or nothing for point in points]
    p99, low, high = np.array(found, float).T
    axes = _new_axes()
    axes.plot(where, p99, color=ACCENT, lw=2, label="p99")
    axes.fill_between(where, low, high, color=ACCENT, alpha=0.18, lw=0, label="95 % interval of p99")
    for name, part, color in (("p90", 0.9, ORANGE), ("p50", 0.5, SOFT)):
        axes.plot(where, [latency(point.measured, part) for point in points], color=color, label=name)
    if limit is not None:
        axes.axhline(limit, color=RED, ls="--", lw=1.2, label=f"limit of p99: {duration(limit)}")
    axes.set_xlim(left=0)
    _value_axis(axes, "s")
    for point, height in zip(points, p99, strict=True):
        face = "none" if point.verdict in ("fails", "unclear") else ACCENT
        axes.plot([point.load], [height], "o", ms=4.5, mec=ACCENT, mfc=face, zorder=3)
    note = ""
    if run.capacity is not None:
        note = "Filled: holds. Hollow: does not. Dotted: the rate that holds."
        axes.axvline(run.capacity.rate, color=INK, lw=1, ls=":")
    return _finish(axes, "Latency against load", "requests/s", note)


def _answered_by_load(points: Sequence[Point]) -> Chart:
    sent, done = ([estimates.rate(point.measured, of).value for point in points] for of in ("sent", "done"))
    axes = _new_axes()
    axes.plot([0, max(sent)], [0, max(sent)], color=INK, ls="--", lw=1, label="all that was due")
    axes.plot(sent, done, "o-", color=ACCENT, lw=2, ms=4.5, label="answered well")
    axes.set_xlim(left=0)
    _value_axis(axes, "requests/s")
    return _finish(axes, "Answered against load", "requests/s")


def _lines(run: Run | None, title: str, unit: str, lines: Sequence[Line]) -> Chart:
    """Lines over the time of `run`, or over something else. Those without a value are left out.

    Over time, lines mark where segments begin, and the time in which they settle is shaded.
    """
    axes = _new_axes()
    every = [line for line in lines if np.isfinite(line.values).any()]
    highest = sorted(every, key=lambda line: -np.nanmax(line.values))[:MOST_LINES]
    for line in every:
        if line in highest:
            axes.plot(line.at, line.values, lw=1.3, label=line.label, **line.style)
    if run is not None:
        axes.set_xlim(0, max(measured.began + measured.segment.seconds for measured in run.segments))
        for measured in run.segments:
            settled = measured.began + measured.segment.settle
            axes.axvspan(measured.began, settled, color=GRID, alpha=0.5, lw=0, zorder=0)
            axes.axvline(measured.began, color=GRID, lw=1)
    _value_axis(axes, unit)
    hidden = len(every) - len(highest)
    return _finish(axes, title, unit, f"{hidden} lower lines are not drawn." if hidden else "")


def _failed(one: Measured, kind: str) -> float:
    """Failures of a kind per second."""
    failures = (interval.failures.get(kind, 0) for _, interval in all_intervals([one]))
    return sum(failures) / one.segment.seconds


def _new_axes(height: float = HEIGHT) -> Axes:
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(WIDTH, height), layout="constrained").subplots()


def _value_axis(axes: Axes, unit: str) -> None:
    """Latencies in seconds on a logarithmic axis, amounts in any other unit from 0 on."""
    if unit == "s":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(EngFormatter("s"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: number(value))


def _finish(axes: Axes, title: str, unit: str, note: str = "") -> Chart:
    """The chart, with a legend if anything has a label."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    handles, labels = axes.get_legend_handles_labels()
    with matplotlib.rc_context(STYLE):
        if labels:
            lines = math.ceil(len(labels) / LEGEND_COLUMNS)
            figure.set_figheight(figure.get_figheight() + lines * LEGEND_LINE)
            figure.legend(handles, labels, loc="outside upper left", ncols=LEGEND_COLUMNS)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    image = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
    return Chart(title, unit, image, note)
