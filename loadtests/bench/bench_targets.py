"""The targets, as ratios within one run, and whether they hold."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import sub, truediv
from statistics import StatisticsError, median

from triptych.loadtests.bench.measure import Result, Row
from triptych.loadtests.bench.sections import compared, growth, latency, on_gpu, overload, router_alone
from triptych.loadtests.confidence import Estimate
from triptych.loadtests.slo import Bound

A, C, D, E_JSON = "(a)", "(c)", "(d)", "(e) token-level output, JSON"
SHORT = {concurrency: load.name for concurrency, load in compared.SHORT.items()}
LISTS, LONG = compared.LISTS.name, compared.LONG.name
RECIPES = {"recipe-tiny": compared.RECIPE_TINY[0].name, "recipe-nano": compared.RECIPE_NANO[1].name}
# With the full size.
GOALS = {
    on_gpu.THROUGH_ROUTER.format(512): 90_000,
    on_gpu.QUERIES: 3_000,
    on_gpu.TIMES_RECIPE.format(512): 3,
}
Results = Mapping[str, Result]
Value = Callable[[Results], float]
"""A measured value. Raises `LookupError` where it was not measured."""


def judged(results: Results) -> Iterator[Bound]:
    """The targets that were measured."""
    for bound, value in targets():
        # Without a good reply in most rounds, a median is 0 or missing.
        with contextlib.suppress(LookupError, StatisticsError, ZeroDivisionError):
            found = value(results)
            yield bound._replace(found=Estimate(found, found, found))


def targets() -> Iterator[tuple[Bound, Value]]:
    """All targets, and how each value is found."""
    for load, least in {SHORT[64]: 4, SHORT[16]: 2.5, SHORT[1]: 1.2, LISTS: 1.2}.items():
        yield _least(f"(d) / (a), {load}", least, "x"), _compare("throughput", load, D, A)
    for section, load in RECIPES.items():
        yield _least(f"(d) / (e) JSON, {load}", 4, "x"), _compare(section, load, D, E_JSON)
    for load in (SHORT[16], SHORT[64], SHORT[256], LISTS, LONG):
        yield _least(f"(d) / (c), {load}", 0.9, "x"), _compare("throughput", load, D, C)
    added = _compare("router", router_alone.ALONE, router_alone.THROUGH, router_alone.DIRECT, "p50_ms", sub)
    yield _most("router adds to the p50 at concurrency 1", 1.5, "ms"), added
    under_bulk = _compare("latency", latency.LOAD, latency.CLASSES, latency.IDLE, "p99_ms")
    yield _most("query p99 under bulk / idle", 3, "x"), under_bulk
    for load in overload.OVERLOADS.values():
        value = partial(_overload, load)
        yield _least(f"{load}: {overload.GOODPUT}", 0.9, "x"), value(overload.GOODPUT, median)
        yield _most(f"{load}: {overload.OTHER}", 0), value(overload.OTHER, sum)
        yield _most(f"{load}: {overload.REFUSAL_MS}", 50, "ms"), value(overload.REFUSAL_MS, median)
        yield _most(f"{load}: {overload.AFTER}", 2, "x"), value(overload.AFTER, median)
    yield _least("router alone, base64, requests per CPU second", 2500, "/s"), _per_core
    yield _most("growth: steepest cost, as a power of n", 1.2), _steepest
    for name, least in GOALS.items():
        yield _least(f"{name}, goal on an H200", least), partial(_figure, name=name)
    yield _most("failures and wrong vectors, overload aside", 0), _failures


def _least(figure: str, bound: float, unit: str = "") -> Bound:
    return Bound(figure, None, bound, "least", unit)


def _most(figure: str, bound: float, unit: str = "") -> Bound:
    return Bound(figure, None, bound, "most", unit)


def _figure(results: Results, name: str) -> float:
    """A figure of any section. Raises `LookupError` if it was not measured."""
    for result in results.values():
        if name in result.figures:
            return result.figures[name]
    raise LookupError(name)


def _row(results: Results, section: str, load: str, system: str) -> Row:
    """The row of a load and of the system whose name begins so. Raises `LookupError` without items."""
    for row in results[section].rows:
        if row.load == load and row.system.startswith(system) and row.items:
            return row
    raise LookupError(f"{section}: {load}: {system}")


def _compare(
    section: str,
    load: str,
    one: str,
    other: str,
    figure: str = "items_per_second",
    by: Callable[[float, float], float] = truediv,
) -> Value:
    """The median of one system's figure, compared with the other system's."""

    def middle(results: Results, system: str) -> float:
        values: list[float] = getattr(_row(results, section, load, system), figure)
        return median(values)

    return lambda results: by(middle(results, one), middle(results, other))


def _overload(load: str, figure: str, of: Callable[[Sequence[float]], float]) -> Value:
    return lambda results: of(_row(results, "overload", load, D).figures[figure])


def _per_core(results: Results) -> float:
    row = _row(results, "router", router_alone.BUSY, router_alone.THROUGH)
    return row.items / row.cpu["router"]


def _steepest(results: Results) -> float:
    """The largest exponent; n log n has 1.2 or less where n is at least 100."""
    rows = results["growth"].rows
    found = [value for row in rows for value in row.figures.get(growth.EXPONENT, ())]
    if not found:
        raise LookupError("growth was not measured")
    return max(found)


def _failures(results: Results) -> float:
    """Failures everywhere but under overload, which asks for refusals."""
    refusing = overload.OVERLOADS.values()
    rows = [row for result in results.values() for row in result.rows if row.load not in refusing]
    if not rows:
        raise LookupError("nothing was measured")
    return sum(sum(row.failures.values()) + row.vectors_wrong for row in rows)
