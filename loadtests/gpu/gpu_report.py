"""The results of a run: one JSON file and its Markdown, written again after each section."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from triptych.loadtests.bench.measure import Result
from triptych.loadtests.bench.summary import number, section, table
from triptych.loadtests.gpu.flops import FORMULA

TOKENS, SHARE = "tokens a second", "share of the measured peak, %"
"""Names in `Row.figures`."""
PEAK = "matrix product, TFLOP/s"
THROUGH_ROUTER = "{}-token texts through router and HTTP, tokens a second"
TIMES_RECIPE = "{}-token texts, times the recipe with JSON"
QUERIES = "30-token queries a second at p99 <= 50 ms, router and worker"


class Outcome(Result, kw_only=True):
    """One section. With an `error` it ended early, and has what was measured until then."""

    figures: dict[str, float]
    error: str = ""


Report = dict[str, Outcome]
"""Sections by name, also of earlier runs into the same folder."""


class Goal(NamedTuple):
    """The least value of a figure on an H200 with the full size."""

    figure: str
    least: float


GOALS = (
    Goal(THROUGH_ROUTER.format(512), 90_000),
    Goal(QUERIES, 3_000),
    Goal(TIMES_RECIPE.format(512), 3),
)


def figure(report: Report, name: str) -> float | None:
    """A figure of any section."""
    found = (outcome.figures[name] for outcome in report.values() if name in outcome.figures)
    return next(found, None)


def read(folder: Path) -> Report:
    """The report in a folder; empty if there is none."""
    file = folder / "gpu.json"
    return msgspec.json.decode(file.read_bytes(), type=Report) if file.exists() else {}


def write(report: Report, folder: Path) -> None:
    """Write `gpu.json` and `gpu.md`. A run that is killed here leaves the old files."""
    data = msgspec.json.format(msgspec.json.encode(report), indent=1)
    for name, content in {"gpu.json": data, "gpu.md": markdown(report).encode()}.items():
        (folder / f"{name}.new").write_bytes(content)
        os.replace(folder / f"{name}.new", folder / name)


def markdown(report: Report) -> str:
    """The goals, then each section."""
    lines = ["# GPU benchmarks", "", FORMULA, ""]
    lines += table(("goal on an H200, full size", "at least", "measured", "holds"), _goals(report))
    for outcome in report.values():
        lines += ["", *section(outcome)]
        if outcome.figures:
            figures = ((name, number(value)) for name, value in outcome.figures.items())
            lines += ["", *table(("figure", "value"), figures)]
        if outcome.error:
            lines += ["", "**Ended early:**", "", *(f"    {line}" for line in outcome.error.splitlines())]
    return "\n".join(lines) + "\n"


def _goals(report: Report) -> Iterator[tuple[str, ...]]:
    for name, least in GOALS:
        value = figure(report, name)
        holds = "not measured" if value is None else "yes" if value >= least else "**no**"
        yield name, number(least), "" if value is None else number(value), holds
