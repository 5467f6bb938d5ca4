"""The figure of docs/SCALE.md, as SVG."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from triptych.loadtests.report.figures import STYLE
from triptych.loadtests.simulate.experiments import Result


def draw(results: list[Result], path: Path) -> None:
    """Draw replicas and load over time, of the first run of each curve."""
    # Later results come first, so that the first of each curve stays.
    curves = {str(result.row["curve"]): result.samples for result in reversed(results)}
    with rc_context(STYLE):
        figure = Figure(figsize=(3 * len(curves), 3), layout="constrained")
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for axis, (curve, samples) in zip(axes, reversed(curves.items()), strict=True):
            minutes = [sample.at / 60 for sample in samples]
            axis.plot(minutes, [sample.serving for sample in samples], label="replicas that serve")
            rates = [sample.rate for sample in samples]
            axis.plot(minutes, rates, color="black", lw=1, ls="--", label="load, in full replicas")
            axis.set(title=curve, xlabel="minutes")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")
