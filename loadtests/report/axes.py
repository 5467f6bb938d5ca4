"""What is the same on the axes of all figures: scales, labels, and where segments begin."""

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from loadtests.report.moments import Column
from loadtests.report.svg import COLOURS, LEFT, RIGHT, WIDTH
from loadtests.report.words import masked, number
from loadtests.results import Run

# Latencies that differ by more than this are drawn on a logarithmic axis.
SPAN_LINEAR = 12.0
STEPS = [1, 2, 3, 5, 10]
# An average letter, in px.
LETTER = 6.5


def time_axis(axes: Axes, run: Run) -> float:
    """The whole run, with where its segments begin and settle; returns how many seconds a unit has."""
    unit, name = (60.0, "min") if run.seconds > 300 else (1.0, "s")
    ends = [measured.began + measured.segment.seconds for measured in run.segments]
    axes.set_xlim(0, max(ends) / unit)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g} {name}" if at else "0"))
    width = (WIDTH - LEFT - RIGHT) / max(ends)
    fits = all(
        len(measured.segment.name) * LETTER < measured.segment.seconds * width for measured in run.segments
    )
    for measured in run.segments:
        settled = measured.began + measured.segment.settle
        if settled > measured.began:
            axes.axvspan(measured.began / unit, settled / unit, color=COLOURS["grid"], alpha=0.45, lw=0)
        if len(run.segments) > 1:
            axes.axvline(measured.began / unit, color=COLOURS["grid"], lw=1)
            if fits:
                _name_segment(axes, measured.began / unit, measured.segment.name)
    return unit


def _name_segment(axes: Axes, at: float, name: str) -> None:
    axes.annotate(
        masked(name),
        (at, 1),
        (3, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        annotation_clip=False,
        fontsize=11,
    )


def load_axis(axes: Axes, loads: Iterable[float]) -> None:
    """From nothing to a little over the highest load."""
    axes.set_xlim(0, 1.04 * max(loads))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda load, _: number(load)))


def latency_axis(axes: Axes, columns: Iterable[Column]) -> None:
    """Logarithmic where times differ by much; the ticks say their unit."""
    values = np.concatenate([column for column in columns if len(column)] or [np.zeros(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values) or values.max() / values.min() < SPAN_LINEAR:
        axes.set_ylim(0, 1.1 * values.max() if len(values) else 1)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _tick(seconds)))
        return
    low, high = values.min() / 1.15, values.max() * 1.15
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    decades = math.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.4 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _tick(seconds)))
    axes.yaxis.set_minor_locator(NullLocator())


def _tick(seconds: float) -> str:
    if seconds < 1e-12:
        return "0"
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5 and (unit == "ms" or seconds < 0.9995e-3):
            return f"{seconds * factor:.4g} {unit}"
    return f"{seconds:.4g} s"


def amount_axis(axes: Axes) -> None:
    """From nothing on."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))


def _amount(value: float) -> str:
    return number(value) if value >= 0.01 or value <= 0 else f"{value:.1g}"


def broken(at: list[float], values: list[float]) -> tuple[Column, Column]:
    """A line with a gap where values are missing for three times as long as they usually are apart."""
    if len(at) < 3:
        return np.array(at), np.array(values)
    usual = float(np.median(np.diff(at)))
    xs, ys = [at[0]], [values[0]]
    for (before, after), value in zip(pairwise(at), values[1:], strict=True):
        if after - before > 3 * usual:
            xs.append((before + after) / 2)
            ys.append(math.nan)
        xs.append(after)
        ys.append(value)
    return np.array(xs), np.array(ys)
