"""The results of benchmarks as Markdown."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from triptych.loadtests.bench.bench_targets import judged
from triptych.loadtests.bench.measure import Result, Row

COLUMNS = ("system", "items/s", "p50 ms", "p99 ms", "failed", "vectors wrong", "CPU s per 1,000 items")


def markdown(results: Mapping[str, Result]) -> str:
    """The targets, then a section for each benchmark."""
    rows = [
        (one.figure, f"at {one.at} {one.amount(one.bound)}", one.measured, "yes" if one.holds else "**no**")
        for one in judged(results)
    ]
    lines = ["# Benchmarks", "", *table(("", "target", "measured", "holds"), rows)]
    for result in results.values():
        lines += ["", *section(result)]
    return "\n".join(lines) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table. A `|` in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def number(value: float) -> str:
    """Three significant digits; whole numbers from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """The median, with the smallest and the largest value."""
    if len(values) < 2:
        return number(values[0]) if values else "none"
    return f"{number(statistics.median(values))} ({number(min(values))} to {number(max(values))})"


def section(result: Result) -> list[str]:
    """The lines of one benchmark: a table for each load, one of figures, and the error."""
    quick = ", quick" if result.quick else ""
    lines = [
        f"## {result.title}",
        "",
        f"{result.began}, {result.seconds:.0f} s{quick}, {result.revision}; {result.machine}.",
    ]
    if result.rows:
        lines.append("Medians of interleaved rounds, with the least and the largest.")
    for load in dict.fromkeys(row.load for row in result.rows):
        rows = [row for row in result.rows if row.load == load]
        lines += ["", f"### {load}"]
        if sent := [row for row in rows if row.requests]:
            lines += ["", *table(COLUMNS, map(_cells, sent))]
        figures = [(row.system, name, spread(values)) for row in rows for name, values in row.figures.items()]
        if figures:
            lines += ["", *table(("system", "figure", "value"), figures)]
    if result.figures:
        values = ((name, number(value)) for name, value in result.figures.items())
        lines += ["", *table(("figure", "value"), values)]
    if result.error:
        lines += ["", "**Ended early:**", "", *(f"    {line}" for line in result.error.splitlines())]
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    failed = [f"{count:,} x {'broken' if kind == '0' else kind}" for kind, count in row.failures.items()]
    return (
        row.system,
        *map(spread, (row.items_per_second, row.p50_ms, row.p99_ms)),
        f"{', '.join(failed) or 0} of {row.requests:,}",
        f"{row.vectors_wrong} of {row.vectors_checked:,}",
        ", ".join(f"{name} {spent / row.items * 1e3:.3g}" for name, spent in row.cpu.items() if row.items),
    )
