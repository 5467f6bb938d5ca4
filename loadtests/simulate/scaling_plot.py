"""The figure of docs/SCALE.md, as SVG."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure

from loadtests.simulate.experiments import Result

matplotlib.use("svg")
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
    # The same data gives the same file.
    "svg.hashsalt": "triptych",
    "svg.fonttype": "none",
}


def draw(results: list[Result], path: Path) -> None:
    """Draw replicas and load over time, of the first run of each curve."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(str(result.row["curve"]), result)
    with matplotlib.rc_context(STYLE):
        figure = _figure(first)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
        pyplot.close(figure)


def _figure(first: dict[str, Result]) -> Figure:
    figure, axes = pyplot.subplots(
        1, len(first), figsize=(3 * len(first), 3), layout="constrained", squeeze=False
    )
    for axis, (curve, result) in zip(axes[0], first.items(), strict=True):
        minutes = [sample.at / 60 for sample in result.samples]
        axis.plot(minutes, [sample.serving for sample in result.samples], label="replicas that serve")
        rates = [sample.rate for sample in result.samples]
        axis.plot(minutes, rates, color="black", lw=1, ls="--", label="load, in full replicas")
        axis.set(title=curve, xlabel="minutes")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
