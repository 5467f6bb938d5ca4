"""The results as Markdown."""

import math
from collections.abc import Sequence

from loadtests.bench.report import number, table
from loadtests.simulate.results import Results, Scaled, Steady

STEADY = [
    *("engine", "replicas", "routers", "lanes", "load", "requests/s", "p50 ms", "p99 ms", "engines busy"),
    *("inputs a batch", "refused", "requests"),
]
SCALED = [
    *("curve", "rule", "changed", "late", "refused", "p50 ms", "p99 s", "most replicas", "replica hours"),
    *("full replicas' hours", "requests"),
]


def markdown(results: Results) -> str:
    """A section for each experiment that was run."""
    lines = [
        f"Seed {results.seed}, {results.revision}{', quick' if results.quick else ''}; {results.machine}."
    ]
    for title, runs in (
        ("Load", results.load),
        ("Routers and lanes", results.routers),
        ("All routers started at once, first 5 s", results.started),
    ):
        if runs:
            lines += ["", f"## {title}", "", *table(STEADY, map(_steady, runs))]
    if results.held:
        columns = ("load", "tokens a replica has", "p99 ms")
        has = [(f"{held.load:g}", number(held.tokens), _ms(held.p99)) for held in results.held]
        lines += ["", "## What a replica has, waiting and running", "", *table(columns, has)]
    if results.scaled:
        lines += ["", "## Autoscaling", "", *table(SCALED, map(_scaled, results.scaled))]
    if results.cost:
        costs = [(f"{cost.replicas:,}", number(cost.seconds * 1e6)) for cost in results.cost]
        lines += ["", "## The pool's part of a router", ""]
        lines += table(("replicas", "us of CPU a request (measured)"), costs)
    if results.control:
        lines += ["", "## Around the engines", "", *_control(results)]
    return "\n".join(lines) + "\n"


def _steady(run: Steady) -> Sequence[str]:
    return (
        run.engine,
        f"{run.replicas:,}",
        str(run.routers),
        str(run.lanes),
        f"{run.load:g}",
        number(run.rate),
        _ms(run.p50),
        _ms(run.p99) + ("" if math.isnan(run.p99_error) else f" ± {_ms(run.p99_error)}"),
        f"{run.busy:.0%}",
        number(run.items_per_batch),
        f"{run.refused:,}",
        f"{run.requests:,}",
    )


def _scaled(run: Scaled) -> Sequence[str]:
    return (
        run.curve,
        run.rule,
        run.changed,
        f"{run.late:.1%}",
        f"{(run.refused + run.expired) / max(1, run.requests):.1%}",
        _ms(run.p50),
        number(run.p99),
        str(run.most_replicas),
        f"{run.replica_hours:.2f}",
        f"{run.full_hours:.2f}",
        f"{run.requests:,}",
    )


def _control(results: Results) -> list[str]:
    columns = [
        *("replicas", "requests/s", "router ms a request", "routers", "connections to a replica"),
        *("connections", "probes/s", "a router's core for probes", "beats/s", "reports/s"),
        *("of what the directory can do", "directory MB/s"),
    ]
    rows = [
        (
            f"{needs.replicas:,}",
            number(needs.rate),
            f"{1000 * needs.request_seconds:.2f}",
            f"{needs.routers:,}",
            f"{needs.connections_per_replica:,}",
            f"{needs.connections:,}",
            number(needs.probes),
            f"{needs.probe_share:.1%}",
            number(needs.beats),
            number(needs.reports),
            f"{needs.directory_share:.0%}",
            number(needs.directory_bytes / 1e6),
        )
        for needs in results.control
    ]
    return table(columns, rows)


def _ms(seconds: float) -> str:
    return number(1000 * seconds)
