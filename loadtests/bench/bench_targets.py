"""The targets, as ratios within one run, and whether they hold."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Literal

from triptych.loadtests.bench.measure import Result, Row
from triptych.loadtests.bench.sections import compared, growth, latency, on_gpu, overload, router_alone
from triptych.loadtests.confidence import Estimate
from triptych.loadtests.slo import Bound

A, C, D, E_JSON = "(a)", "(c)", "(d)", "(e) token-level output, JSON"
SHORT = {concurrency: load.name for concurrency, load in compared.SHORT.items()}
LISTS, LONG = compared.LISTS.name, compared.LONG.name
RECIPES = {"recipe-tiny": compared.RECIPE["tiny"][0].name, "recipe-nano": compared.RECIPE["nano"][1].name}
# With the full size.
GOALS = {
    on_gpu.THROUGH_ROUTER.format(512): 90_000,
    on_gpu.QUERIES: 3_000,
    on_gpu.TIMES_RECIPE.format(512): 3,
}
Results = Mapping[str, Result]
Target = tuple[str, float, Literal["least", "most"], float, str]
"""Its name, what was measured (not finite: nothing), the bound, and the unit of both."""


def judged(results: Results) -> list[Bound]:
    """The targets that were measured."""
    return [
        Bound(name, Estimate(found, found, found), bound, at, unit)
        for name, found, at, bound, unit in _targets(results)
        if math.isfinite(found)
    ]


def _targets(results: Results) -> Iterator[Target]:
    for load, least in {SHORT[64]: 4, SHORT[16]: 2.5, SHORT[1]: 1.2, LISTS: 1.2}.items():
        yield f"(d) / (a), {load}", _times(results, "throughput", load, D, A), "least", least, "x"
    for section, load in RECIPES.items():
        yield f"(d) / (e) JSON, {load}", _times(results, section, load, D, E_JSON), "least", 4, "x"
    for load in (SHORT[16], SHORT[64], SHORT[256], LISTS, LONG):
        yield f"(d) / (c), {load}", _times(results, "throughput", load, D, C), "least", 0.9, "x"
    through, direct = (
        _figure(_row(results, "router", router_alone.ALONE, system), "p50_ms")
        for system in (router_alone.THROUGH, router_alone.DIRECT)
    )
    yield "router adds to the p50 at concurrency 1", through - direct, "most", 1.5, "ms"
    under_bulk = _times(results, "latency", latency.LOAD, latency.CLASSES, latency.IDLE, "p99_ms")
    yield "query p99 under bulk / idle", under_bulk, "most", 3, "x"
    for load in overload.OVERLOADS.values():
        row = _row(results, "overload", load, D)
        yield f"{load}: {overload.GOODPUT}", _figure(row, overload.GOODPUT), "least", 0.9, "x"
        yield f"{load}: {overload.OTHER}", _figure(row, overload.OTHER, sum), "most", 0, ""
        yield f"{load}: {overload.REFUSAL_MS}", _figure(row, overload.REFUSAL_MS), "most", 50, "ms"
        yield f"{load}: {overload.AFTER}", _figure(row, overload.AFTER), "most", 2, "x"
    busy = _row(results, "router", router_alone.BUSY, router_alone.THROUGH)
    per_core = _quotient(busy.items, busy.cpu["router"]) if busy else math.nan
    yield "router alone, base64, requests per CPU second", per_core, "least", 2500, "/s"
    # n log n has 1.2 or less where n is at least 100.
    grown = results["growth"].rows if "growth" in results else ()
    steepest = max(
        (_figure(row, growth.EXPONENT, max) for row in grown if growth.EXPONENT in row.figures),
        default=math.nan,
    )
    yield "growth: steepest cost, as a power of n", steepest, "most", 1.2, ""
    for name, goal in GOALS.items():
        found = [result.figures[name] for result in results.values() if name in result.figures]
        yield f"{name}, goal on an H200", found[0] if found else math.nan, "least", goal, ""
    # Overload asks for refusals.
    refusing = overload.OVERLOADS.values()
    rows = [row for result in results.values() for row in result.rows if row.load not in refusing]
    failures = sum(sum(row.failures.values()) + row.vectors_wrong for row in rows) if rows else math.nan
    yield "failures and wrong vectors, overload aside", failures, "most", 0, ""


def _row(results: Results, section: str, load: str, system: str) -> Row | None:
    """The row of a load and of the system whose name begins so; None without items."""
    rows = results[section].rows if section in results else ()
    found = (row for row in rows if row.load == load and row.system.startswith(system) and row.items)
    return next(found, None)


def _figure(row: Row | None, name: str, of: Callable[[Sequence[float]], float] = median) -> float:
    """The median of a row's figure over the rounds, or another summary; NaN if it was not measured."""
    values = row and (row.figures.get(name) or getattr(row, name, None))
    return of(values) if values else math.nan


def _times(
    results: Results, section: str, load: str, one: str, other: str, name: str = "items_per_second"
) -> float:
    """One system's figure as a multiple of the other system's."""
    return _quotient(*(_figure(_row(results, section, load, system), name) for system in (one, other)))


def _quotient(over: float, under: float) -> float:
    """NaN for a divisor of 0: without a good reply in most rounds, a median is 0."""
    return over / under if under else math.nan
