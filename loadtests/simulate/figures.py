"""The figures of docs/SCALE.md, as SVG."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure

from loadtests.simulate.experiments import Result
from loadtests.simulate.profiles import GPU

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


def draw(results: dict[str, list[Result]], out: Path) -> None:
    """Write scale-load.svg and scale-autoscaling.svg for the experiments that were run."""
    with matplotlib.rc_context(STYLE):
        if "load" in results:
            _save(_load(results["load"]), out / "scale-load.svg")
        if "scaling" in results:
            _save(_scaling(results["scaling"]), out / "scale-autoscaling.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


def _load(results: list[Result]) -> Figure:
    figure, axis = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    rows = [result.row for result in results if result.row["engine"] == GPU.name]
    for replicas in dict.fromkeys(row["replicas"] for row in rows):
        points = [row for row in rows if row["replicas"] == replicas]
        loads = [row["load"] for row in points]
        label = f"{replicas:,} ({points[0]['routers']})"
        [line] = axis.plot(loads, [row["p99 ms"] for row in points], marker="o", ms=3, label=label)
        axis.plot(loads, [row["p50 ms"] for row in points], color=line.get_color(), ls=":")
    axis.set(yscale="log", xlabel="load (of capacity with full steps)", ylabel="ms", title="p99, dotted p50")
    axis.axvline(1.0, color="grey", lw=0.8)
    axis.legend(title="replicas (routers)")
    return figure


def _scaling(results: list[Result]) -> Figure:
    """The first run of each curve."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(str(result.row["curve"]), result)
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
