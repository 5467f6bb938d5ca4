"""The results as Markdown."""

from collections.abc import Mapping

from loadtests.bench.bench_targets import verdicts
from loadtests.bench.markdown import spread, table
from loadtests.bench.rows import Result, Row

COLUMNS = ("system", "items/s", "p50 ms", "p99 ms", "failed", "vectors wrong", "CPU s per 1,000 items")
STATUSES = {"0": "broken", "200": "200 without a body"}


def markdown(results: Mapping[str, Result]) -> str:
    """The targets, then a section for each benchmark."""
    rows = [
        (verdict.name, verdict.target, verdict.measured, "yes" if verdict.holds else "**no**")
        for verdict in verdicts(results)
    ]
    lines = ["# Benchmarks", "", *table(("", "target", "measured", "holds"), rows)]
    for result in results.values():
        lines += ["", *_section(result)]
    return "\n".join(lines) + "\n"


def _section(result: Result) -> list[str]:
    quick = ", quick" if result.quick else ""
    lines = [
        f"## {result.title}",
        "",
        f"{result.began}, {result.seconds:.0f} s{quick}, {result.revision}; {result.machine}.",
        "Medians of interleaved rounds, with the least and the largest.",
    ]
    for load in dict.fromkeys(row.load for row in result.rows):
        rows = [row for row in result.rows if row.load == load]
        lines += ["", f"### {load}", "", *table(COLUMNS, map(_cells, rows))]
        figures = [(row.system, name, spread(values)) for row in rows for name, values in row.figures.items()]
        if figures:
            lines += ["", *table(("system", "figure", "value"), figures)]
    elsewhere = max(row.elsewhere for row in result.rows)
    stolen = max(row.stolen for row in result.rows)
    lines += ["", f"At most {elsewhere:.1%} of the machine's time went to other processes, {stolen:.1%} to"]
    lines[-1] += " other machines on the same host (the worst row)."
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    failed = [f"{count:,} x {STATUSES.get(kind, kind)}" for kind, count in row.failures.items()]
    return (
        row.system,
        spread(row.items_per_second),
        spread(row.p50_ms),
        spread(row.p99_ms),
        f"{', '.join(failed) or 0} of {row.requests:,}",
        f"{row.vectors_wrong} of {row.vectors_checked:,}",
        ", ".join(f"{name} {seconds:.3g}" for name, seconds in row.cpu.items()),
    )
