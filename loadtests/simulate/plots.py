"""The figures, as SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure

from loadtests.simulate.control import ROUTER_REQUESTS_PER_CPU_SECOND, needs
from loadtests.simulate.experiments import DEPLOYED, SLO_SECONDS, TOKENS_HELD
from loadtests.simulate.profiles import GPU, TEXTS
from loadtests.simulate.results import Results, Scaled, Steady

matplotlib.use("svg")
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
    # The same data gives the same file, and letters stay letters.
    "svg.hashsalt": "triptych",
    "svg.fonttype": "none",
}


def draw(results: Results, out: Path) -> None:
    """Write scale-*.svg into `out`, one for each experiment that was run."""
    with matplotlib.rc_context(STYLE):
        if results.load:
            _save(_load(results.load), out / "scale-load.svg")
        if results.routers:
            _save(_routers(results.routers), out / "scale-routers.svg")
        if results.scaled:
            _save(_scaling(results.scaled), out / "scale-autoscaling.svg")
        if results.control:
            _save(_control(), out / "scale-control.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


def _axes(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Sequence[Any]]:
    figure, axes = pyplot.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    return figure, axes.ravel()


def _load(runs: list[Steady]) -> Figure:
    figure, (latency, busy) = _axes(1, 2, (9, 3.6))
    for replicas in dict.fromkeys(run.replicas for run in runs):
        points = [run for run in runs if run.replicas == replicas and run.engine == GPU.name]
        loads = [run.load for run in points]
        label = f"{replicas:,} ({points[0].routers})"
        (line,) = latency.plot(loads, [1000 * run.p99 for run in points], marker="o", ms=3, label=label)
        latency.plot(loads, [1000 * run.p50 for run in points], color=line.get_color(), ls=":")
        busy.plot(loads, [100 * run.busy for run in points], marker="o", ms=3, label=label)
    latency.set(yscale="log", xlabel="load (of capacity with full steps)", ylabel="latency in ms")
    latency.set_title("p99, and dotted p50")
    latency.axvline(1.0, color="grey", lw=0.8)
    busy.set(xlabel="load (of capacity with full steps)", ylabel="time in a step, %", ylim=(0, 104))
    busy.set_title("Engines busy")
    busy.axvline(1.0, color="grey", lw=0.8)
    latency.legend(title="replicas (routers)")
    return figure


def _routers(runs: list[Steady]) -> Figure:
    loads = list(dict.fromkeys(run.load for run in runs))
    figure, axes = _axes(1, len(loads), (9, 3.4), sharey=True)
    for axis, load in zip(axes, loads, strict=True):
        for lanes in dict.fromkeys(run.lanes for run in runs):
            points = [run for run in runs if run.lanes == lanes and run.load == load]
            routers = [run.routers for run in points]
            axis.errorbar(
                routers,
                [1000 * run.p99 for run in points],
                yerr=[1000 * run.p99_error for run in points],
                marker="o",
                ms=3,
                lw=1,
                label=f"{lanes}",
            )
        axis.set(xscale="log", xlabel="routers", title=f"load {load:g}, 100 replicas")
        axis.set_xticks(routers, [str(number) for number in routers])
        axis.minorticks_off()
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("p99 in ms, with 95 % interval")
    axes[0].legend(title="lanes", ncols=3, loc="lower right")
    return figure


def _scaling(runs: list[Scaled]) -> Figure:
    """Of each curve and rule the first run."""
    chosen: dict[tuple[str, str], Scaled] = {}
    for run in runs:
        if run.curve != "bursts":
            chosen.setdefault((run.curve, run.rule), run)
    curves = list(dict.fromkeys(curve for curve, _ in chosen))
    figure, axes = _axes(2, len(curves), (3.4 * len(curves) + 0.6, 5), sharex="col", sharey="row")
    for index, curve in enumerate(curves):
        replicas, late = axes[index], axes[len(curves) + index]
        for number, rule in enumerate((DEPLOYED, TOKENS_HELD)):
            if (curve, rule) not in chosen:
                continue
            moments = chosen[curve, rule].moments
            minutes = [moment.at / 60 for moment in moments]
            replicas.plot(minutes, [moment.serving for moment in moments], color=f"C{number}", label=rule)
            late.plot(minutes, [100 * moment.late for moment in moments], color=f"C{number}")
        asked = [moment.asked for moment in moments]
        replicas.plot(minutes, asked, color="black", lw=1, ls="--", label="asked for, in full replicas")
        replicas.set_title(curve)
        late.set(xlabel="minutes", ylim=(0, 104))
    axes[0].set_ylabel("replicas that serve")
    axes[len(curves)].set_ylabel(f"refused or over {SLO_SECONDS:g} s, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _control() -> Figure:
    figure, (routers, share) = _axes(1, 2, (9, 3.4))
    sizes = [round(10 ** (1 + index / 10)) for index in range(21)]
    points = [needs(size, 0.85 * size * GPU.capacity(TEXTS.mean)) for size in sizes]
    routers.loglog(sizes, [point.routers for point in points], label="router processes")
    routers.loglog(
        sizes, [point.connections_per_replica for point in points], label="connections to a replica"
    )
    routers.set(xlabel="replicas", ylabel="number", title="What the load needs")
    routers.legend()
    share.loglog(sizes, [100 * point.directory_share for point in points], label="the directory")
    share.loglog(sizes, [100 * point.probe_share for point in points], label="a router's core, for probes")
    scan = [100 * (1 - 1 / (ROUTER_REQUESTS_PER_CPU_SECOND * point.request_seconds)) for point in points]
    share.loglog(sizes, scan, label="a request's CPU, to choose among replicas")
    share.axhline(100, color="grey", lw=0.8)
    share.set(xlabel="replicas", ylabel="share, %", title="What it takes", ylim=(0.02, 300))
    share.legend(fontsize=8, loc="lower right")
    return figure
