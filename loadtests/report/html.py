"""The report as one HTML page without scripts or outside resources."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from triptych.loadtests.report import plots, tables
from triptych.loadtests.report.cuts import points
from triptych.loadtests.report.headline import banners, p99_limit
from triptych.loadtests.results import Run
from triptych.loadtests.slo import Bound

# Longer tables are folded.
MOST_ROWS = 24


def render(run: Run, judgement: Sequence[Bound] = ()) -> str:
    """The page of a run. All text from the run is escaped."""
    environment = Environment(
        loader=PackageLoader("triptych.loadtests.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loads = points(run)
    return environment.get_template("page.html.j2").render(
        run=run,
        title=f"{run.name}: load test of {', '.join(run.target.values())}",
        banners=banners(run, judgement),
        sections=[
            ("By load", "", plots.by_load(run, loads, p99_limit(run, judgement))),
            (
                "Over time",
                "In seconds. Lines: a segment begins. Shaded: it settles and does not count.",
                plots.over_time(run),
            ),
            ("The server meanwhile", "Its own metrics, on the same axis of time.", plots.of_server(run)),
            ("By flow", "", plots.by_flow(run, loads)),
            (
                "Where the time goes",
                "Parts of the mean latency of good replies.",
                plots.time_spent(run, loads),
            ),
        ],
        tables=tables.every(run),
        most_rows=MOST_ROWS,
        setup=tables.setup(run),
    )
