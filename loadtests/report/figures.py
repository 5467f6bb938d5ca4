"""Drawing with matplotlib: the style of the figures, their axes, and SVG images for the page."""

import base64
import io
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from triptych.loadtests.report.words import number
from triptych.loadtests.results import Run

Column = NDArray[np.float64]

INK, GRID = "#59616b", "#dfe3e8"
REDS = ["#8c1d18", "#f2a79f", "#c9302c", "#f8d0cb", "#e57368", "#c9cdd3"]
ACCENT, SOFT, ORANGE, TEAL, RED = "#1f62c8", "#8fb4ea", "#d97706", "#0f8f7e", "#c9302c"
SIZE = (6.4, 2.7)
# Characters of a legend's line.
LEGEND_WIDTH = 80
LEGEND_LINE = 0.17
# Latencies that differ by a larger factor get a logarithmic axis.
SPAN_LINEAR = 12.0

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
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


def new_axes(height: float = SIZE[1]) -> Axes:
    """Axes in the common style; `finish` turns them into a chart."""
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(SIZE[0], height), layout="constrained").subplots()


def finish(axes: Axes, title: str, unit: str = "", note: str = "") -> Chart:
    """The chart, with a legend if anything has a label."""
    figure, file = axes.get_figure(root=True), io.BytesIO()
    assert figure is not None
    handles, labels = axes.get_legend_handles_labels()
    with matplotlib.rc_context(STYLE):
        if labels:
            columns = max(1, min(3, LEGEND_WIDTH // (max(map(len, labels)) + 8)))
            # Each further line of the legend makes the figure higher.
            lines = math.ceil(len(labels) / columns)
            figure.set_figheight(figure.get_figheight() + (lines - 1) * LEGEND_LINE)
            figure.legend(handles, labels, loc="outside upper left", ncols=columns)
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    image = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
    return Chart(title, unit, image, note)


def time_axis(axes: Axes, run: Run) -> None:
    """The whole run in seconds. Lines: where segments begin. Shaded: where they settle."""
    end = max(measured.began + measured.segment.seconds for measured in run.segments)
    axes.set_xlim(0, end)
    axes.xaxis.set_major_formatter(EngFormatter("s") if end < 1000 else (lambda at, _: f"{at / 60:g} min"))
    for measured in run.segments:
        settled = measured.began + measured.segment.settle
        axes.axvspan(measured.began, settled, color=GRID, alpha=0.5, lw=0, zorder=0)
        if len(run.segments) > 1:
            axes.axvline(measured.began, color=GRID, lw=1)


def latency_axis(axes: Axes, columns: Iterable[Column]) -> None:
    """Latencies in seconds, logarithmic if they differ much."""
    values = np.concatenate([*columns, np.zeros(0)])
    values = values[np.isfinite(values) & (values > 0)]
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    if not len(values) or values.max() < SPAN_LINEAR * values.min():
        axes.set_ylim(0, 1.1 * values.max() if len(values) else 1)
        return
    axes.set_yscale("log")
    axes.set_ylim(values.min() / 1.15, values.max() * 1.15)
    decades = math.log10(values.max() / values.min())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.4 else (1.0,)))
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.yaxis.set_minor_locator(NullLocator())


def amount_axis(axes: Axes) -> None:
    """Amounts from 0 on."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
