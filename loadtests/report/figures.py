"""Drawing with matplotlib: the style of the figures, their axes, and SVG images for the page."""

import base64
import io
import math
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from triptych.loadtests.report.words import number
from triptych.loadtests.results import Run

INK, GRID = "#59616b", "#dfe3e8"
ACCENT, SOFT, ORANGE, TEAL, RED = "#1f62c8", "#8fb4ea", "#d97706", "#0f8f7e", "#c9302c"
WIDTH, HEIGHT, LEGEND_LINE = 6.4, 2.7, 0.17
LEGEND_COLUMNS = 2

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


def new_axes(height: float = HEIGHT) -> Axes:
    """Axes in the common style; `finish` turns them into a chart."""
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(WIDTH, height), layout="constrained").subplots()


def finish(axes: Axes, title: str, unit: str = "", note: str = "") -> Chart:
    """The chart, with a legend if anything has a label."""
    figure, file = axes.get_figure(root=True), io.BytesIO()
    assert figure is not None
    handles, labels = axes.get_legend_handles_labels()
    with matplotlib.rc_context(STYLE):
        if labels:
            lines = math.ceil(len(labels) / LEGEND_COLUMNS)
            figure.set_figheight(figure.get_figheight() + lines * LEGEND_LINE)
            figure.legend(handles, labels, loc="outside upper left", ncols=LEGEND_COLUMNS)
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    image = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
    return Chart(title, unit, image, note)


def time_axis(axes: Axes, run: Run) -> None:
    """The whole run in seconds. Lines: where segments begin. Shaded: where they settle."""
    axes.set_xlim(0, max(measured.began + measured.segment.seconds for measured in run.segments))
    for measured in run.segments:
        settled = measured.began + measured.segment.settle
        axes.axvspan(measured.began, settled, color=GRID, alpha=0.5, lw=0, zorder=0)
        axes.axvline(measured.began, color=GRID, lw=1)


def value_axis(axes: Axes, unit: str) -> None:
    """Latencies in seconds on a logarithmic axis, amounts in any other unit from 0 on."""
    if unit == "s":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(EngFormatter("s"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: number(value))
