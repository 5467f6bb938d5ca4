"""The figures of a run: by load, over time, of the server, and by flow."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from loadtests import estimates
from loadtests.report.axes import amount_axis, broken, latency_axis, load_axis, time_axis
from loadtests.report.moments import Column, Point, clock_percentile, moments
from loadtests.report.svg import COLOURS, Drawer, Drawn
from loadtests.report.words import duration, loads
from loadtests.results import WRONG, Clock, Run, Series

# Fewer loads make no curve.
LEAST_POINTS = 3
MOST_LINES = 8
MOST_KINDS = 5
DASHED = (0, (5, 3))
PANELS = {"cpu": "CPU"}


class Key(NamedTuple):
    """One entry of a legend; `colour` is a name of the page's. `style` as in the page's: "line",
    "dashed", "band" or "haze"."""

    colour: str
    label: str
    style: str = "line"


class Chart(NamedTuple):
    """A figure with what stands around it on the page."""

    title: str
    unit: str
    svg: str
    keys: list[Key]
    note: str = ""


def by_load(drawer: Drawer, run: Run, points: Sequence[Point], limit: float | None) -> list[Chart]:
    """Latency, and what is answered, against the load. Empty for fewer than three loads.

    `limit` (seconds) is what p99 has to hold.
    """
    if len(points) < LEAST_POINTS:
        return []
    charts = [_latency_by_load(drawer, run, points, limit)]
    return [*charts, _answered_by_load(drawer, run, points)]


def _latency_by_load(drawer: Drawer, run: Run, points: Sequence[Point], limit: float | None) -> Chart:
    where = np.array([point.load for point in points])
    p50, p90 = (_percentiles(points, part) for part in (0.5, 0.9))
    nothing = (math.nan, math.nan, math.nan)
    p99, low, high = np.array(
        [estimates.latency(point.measured, 0.99) or nothing for point in points], float
    ).T
    keys = [Key("accent", "p99"), Key("accent", "95 % interval of p99", "haze")]
    keys += [Key("s2", "p90"), Key("soft", "p50")]
    with drawer.draw("Latency against load") as drawn:
        axes = drawn.axes
        axes.fill_between(where, low, high, color=COLOURS["accent"], alpha=0.18, lw=0)
        axes.plot(where, p50, color=COLOURS["soft"])
        axes.plot(where, p90, color=COLOURS["s2"])
        axes.plot(where, p99, color=COLOURS["accent"], lw=2)
        note = _marks(drawn, run, points, where, p99)
        if limit is not None:
            axes.axhline(limit, color=COLOURS["bad2"], ls=DASHED, lw=1.2)
            keys.append(Key("bad2", f"to be held: {duration(limit)}", "dashed"))
        latency_axis(axes, [p50, p99, high, np.array([limit or math.nan])])
        load_axis(axes, where)
    return Chart("Latency against load", loads(run.segments[0].segment)[2], drawn.svg, keys, note)


def _marks(drawn: Drawn, run: Run, points: Sequence[Point], where: Column, heights: Column) -> str:
    """The loads that were tried; what did not hold is hollow."""
    for point, at, height in zip(points, where, heights, strict=True):
        face = "none" if point.verdict in ("fails", "unclear") else COLOURS["accent"]
        drawn.axes.plot([at], [height], "o", ms=4.5, mec=COLOURS["accent"], mfc=face, clip_on=False, zorder=3)
    if run.capacity is None:
        return ""
    if run.capacity.rate:
        drawn.axes.axvline(run.capacity.rate, color=COLOURS["faint"], lw=1, ls=(0, (1.5, 2.5)))
    return "Filled: holds. Hollow: does not. Dotted: the rate that holds."


def _answered_by_load(drawer: Drawer, run: Run, points: Sequence[Point]) -> Chart:
    unit = loads(run.segments[0].segment)[2]
    where = np.array([point.load for point in points])
    answered = np.array([estimates.throughput(point.measured, None).value for point in points])
    keys = [Key("accent", "answered well")]
    with drawer.draw("Answered against load") as drawn:
        if run.loop == "open":
            where = np.array([estimates.offered(point.measured, None).value for point in points])
            order = np.argsort(where)
            points = [points[number] for number in order]
            where, answered = where[order], answered[order]
            drawn.axes.plot([0, where.max()], [0, where.max()], color=COLOURS["faint"], ls=DASHED, lw=1)
            keys.append(Key("faint", "all that was asked", "dashed"))
        drawn.axes.plot(where, answered, color=COLOURS["accent"], lw=2)
        _marks(drawn, run, points, where, answered)
        load_axis(drawn.axes, where)
        amount_axis(drawn.axes)
    return Chart("Answered against load", unit, drawn.svg, keys)


def over_time(drawer: Drawer, run: Run) -> list[Chart]:
    """What the clients saw."""
    lines: list[tuple[Clock, float]] = [("total", 0.5), ("total", 0.99), ("router", 0.5), ("router", 0.99)]
    seen = moments(run, lines)
    failures = [_failures(drawer, run, seen.at, seen.failures)] if seen.failures else []
    return [
        _latency_over_time(drawer, run, seen.at, seen.latency),
        _load_over_time(drawer, run, seen.at, seen.offered, seen.answered),
        *failures,
        _in_flight(drawer, run, seen.at, seen.in_flight),
    ]


def _latency_over_time(
    drawer: Drawer, run: Run, at: Column, latency: dict[tuple[Clock, float], Column]
) -> Chart:
    styles: dict[tuple[Clock, float], tuple[str, str]] = {
        ("total", 0.99): ("accent", "p99"),
        ("total", 0.5): ("soft", "p50"),
        ("router", 0.99): ("s2", "p99, the server's clock"),
        ("router", 0.5): ("s3", "p50, the server's clock"),
    }
    keys = []
    with drawer.draw("Latency over time") as drawn:
        unit = time_axis(drawn.axes, run)
        for line, (colour, label) in styles.items():
            if np.isfinite(latency[line]).any():
                # The server's clock is often so near that a whole line would hide the other.
                dashed = line[0] == "router"
                style: Any = {"ls": DASHED, "lw": 1.1} if dashed else {"lw": 1.4}
                drawn.axes.plot(at / unit, latency[line], color=COLOURS[colour], **style)
                keys.append(Key(colour, label, "dashed" if dashed else "line"))
        latency_axis(drawn.axes, latency.values())
    return Chart("Latency", "", drawn.svg, keys)


def _load_over_time(drawer: Drawer, run: Run, at: Column, offered: Column, answered: Column) -> Chart:
    asked = "due" if run.loop == "open" else "sent"
    with drawer.draw("Load over time") as drawn:
        unit = time_axis(drawn.axes, run)
        drawn.axes.plot(at / unit, offered, color=COLOURS["faint"], lw=1.2)
        drawn.axes.plot(at / unit, answered, color=COLOURS["accent"])
        amount_axis(drawn.axes)
    return Chart("Load", "requests/s", drawn.svg, [Key("accent", "answered well"), Key("faint", asked)])


def _failures(drawer: Drawer, run: Run, at: Column, failures: dict[str, Column]) -> Chart:
    # Those found by the checks stand below, in the strongest colour.
    order = sorted(failures, key=lambda kind: (not kind.startswith(WRONG), -np.nansum(failures[kind])))
    named = order if len(order) <= MOST_KINDS else order[: MOST_KINDS - 1]
    rows = [(kind, np.nan_to_num(failures[kind])) for kind in named]
    if rest := order[len(named) :]:
        together = np.sum([np.nan_to_num(failures[kind]) for kind in rest], axis=0)
        rows.append((f"{len(rest)} other kinds", together))
    keys = []
    with drawer.draw("Failures over time") as drawn:
        unit = time_axis(drawn.axes, run)
        base = np.zeros(len(at))
        for number, (kind, column) in enumerate(rows, 1):
            colour = f"bad{number}"
            drawn.axes.fill_between(at / unit, base, base + column, step="mid", color=COLOURS[colour], lw=0)
            base = base + column
            keys.append(Key(colour, kind, "band"))
        drawn.axes.set_ylim(0, 1.08 * base.max() or 1)
        amount_axis(drawn.axes)
    return Chart("Failures", "requests/s", drawn.svg, keys)


def _in_flight(drawer: Drawer, run: Run, at: Column, in_flight: Column) -> Chart:
    with drawer.draw("Requests in flight over time") as drawn:
        unit = time_axis(drawn.axes, run)
        drawn.axes.fill_between(at / unit, 0, in_flight, color=COLOURS["accent"], alpha=0.15, lw=0)
        drawn.axes.plot(at / unit, in_flight, color=COLOURS["accent"], lw=1.2)
        amount_axis(drawn.axes)
    return Chart("In flight", "requests", drawn.svg, [])


def of_server(drawer: Drawer, run: Run) -> list[Chart]:
    """What the server says of itself, a figure for each panel and unit."""
    panels: dict[tuple[str, str], list[Series]] = {}
    for series in run.series:
        if series.at:
            panels.setdefault((series.panel, series.unit), []).append(series)
    return [_panel(drawer, run, panel, unit, lines) for (panel, unit), lines in panels.items()]


def _panel(drawer: Drawer, run: Run, panel: str, unit: str, lines: list[Series]) -> Chart:
    highest = sorted(range(len(lines)), key=lambda index: -max(lines[index].values))[:MOST_LINES]
    # In the order in which they were given, so that colours stay from panel to panel.
    shown = [lines[index] for index in sorted(highest)]
    columns = []
    with drawer.draw(f"{panel}, {unit}, over time") as drawn:
        seconds = time_axis(drawn.axes, run)
        for number, line in enumerate(shown, 1):
            at, values = broken(line.at, line.values)
            drawn.axes.plot(at / seconds, values, color=COLOURS[f"s{number}"], lw=1.3)
            columns.append(values)
        if unit == "s":
            latency_axis(drawn.axes, columns)
        else:
            amount_axis(drawn.axes)
    hidden = len(lines) - len(shown)
    note = f"{hidden} more, which stay lower, are not drawn." if hidden else ""
    keys = [Key(f"s{number}", line.name) for number, line in enumerate(shown, 1)]
    return Chart(PANELS.get(panel, panel.capitalize()), "" if unit == "s" else unit, drawn.svg, keys, note)


def by_flow(drawer: Drawer, run: Run, points: Sequence[Point]) -> list[Chart]:
    """Latency of each flow, all on one scale: against the load where there are loads, else over time."""
    flows = list(dict.fromkeys(flow for measured in run.segments for flow in measured.intervals))
    if len(flows) < 2:
        return []
    curve = len(points) >= LEAST_POINTS
    axis = loads(run.segments[0].segment)[2] if curve else ""
    found = {}
    for flow in flows:
        if curve:
            where = np.array([point.load for point in points])
            found[flow] = where, _percentiles(points, 0.5, flow), _percentiles(points, 0.99, flow)
        else:
            seen = moments(run, [("total", 0.5), ("total", 0.99)], flow, most=120)
            found[flow] = seen.at, seen.latency["total", 0.5], seen.latency["total", 0.99]
    every = [column for _, *columns in found.values() for column in columns]
    keys = [Key("accent", "p99"), Key("soft", "p50")]
    charts = []
    for flow, (where, p50, p99) in found.items():
        with drawer.draw(f"Latency of {flow}") as drawn:
            if curve:
                load_axis(drawn.axes, where)
                unit = 1.0
            else:
                unit = time_axis(drawn.axes, run)
            drawn.axes.plot(where / unit, p50, color=COLOURS["soft"])
            drawn.axes.plot(where / unit, p99, color=COLOURS["accent"])
            latency_axis(drawn.axes, every)
        charts.append(Chart(flow, axis, drawn.svg, keys))
    return charts


def _percentiles(points: Iterable[Point], part: float, flow: str | None = None) -> Column:
    return np.array([clock_percentile(point.measured, part, flow=flow) for point in points])
