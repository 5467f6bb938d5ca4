"""The results as Markdown."""

from collections.abc import Iterable, Mapping, Sequence

from loadtests.bench.results import Result, Row
from loadtests.bench.stats import spread
from loadtests.bench.targets import verdicts

COLUMNS = ("system", "items/s", "p50 ms", "p99 ms", "failed", "vectors wrong", "CPU s per 1,000 items")


def markdown(results: Mapping[str, Result]) -> str:
    """Targets first, then a section for each benchmark."""
    parts = ["# Benchmarks", "", *_targets(results)]
    for result in results.values():
        parts += ["", *_section(result)]
    return "\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a `|` in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _targets(results: Mapping[str, Result]) -> list[str]:
    rows = [
        (verdict.name, verdict.target, verdict.measured, "yes" if verdict.holds else "**no**")
        for verdict in verdicts(results)
    ]
    return table(("", "target", "measured", "holds"), rows)


def _section(result: Result) -> list[str]:
    lines = [f"## {result.title}", ""]
    quick = ", quick" if result.quick else ""
    lines.append(f"{result.began}, {result.seconds:.0f} s{quick}, {result.revision}; {result.machine}.")
    lines.append("Medians of interleaved rounds, with the least and the largest.")
    for load in dict.fromkeys(row.load for row in result.rows):
        rows = [row for row in result.rows if row.load == load]
        lines += ["", f"### {load}", "", *table(COLUMNS, map(_cells, rows))]
        figures = [
            (row.system, name, _spread(values)) for row in rows for name, values in row.figures.items()
        ]
        if figures:
            lines += ["", *table(("system", "figure", "value"), figures)]
    elsewhere = max(row.elsewhere for row in result.rows)
    stolen = max(row.stolen for row in result.rows)
    lines += ["", f"At most {elsewhere:.1%} of the machine's time went to other processes, {stolen:.1%} to"]
    lines[-1] += " other machines on the same host (the worst row)."
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.system,
        _spread(row.items_per_second),
        _spread(row.p50_ms),
        _spread(row.p99_ms),
        f"{_failed(row.failures)} of {row.requests:,}",
        f"{row.vectors_wrong} of {row.vectors_checked:,}",
        ", ".join(f"{name} {seconds:.3g}" for name, seconds in row.cpu.items()),
    )


def _failed(failures: Mapping[str, int]) -> str:
    if not failures:
        return "0"
    named = {"0": "broken", "200": "200 without a body"}
    return ", ".join(f"{count:,} x {named.get(status, status)}" for status, count in failures.items())


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    median, low, high = spread(values)
    return number(median) if len(values) == 1 else f"{number(median)} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Three significant digits, thousands whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
