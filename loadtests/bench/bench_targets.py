"""The targets, as ratios within one run, and whether they hold."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from loadtests.bench.rows import Result, Row
from loadtests.bench.sections import latency, overload, recipe, router_alone, throughput

A, C, D, E_JSON = "(a)", "(c)", "(d)", "(e) token-level output, JSON"
Results = Mapping[str, Result]


@dataclass(frozen=True)
class Target:
    """A bound on `value`, which raises `LookupError` where it was not measured."""

    name: str
    bound: float
    at: Literal["least", "most"]
    value: Callable[[Results], float]
    unit: str = "x"


@dataclass(frozen=True)
class Verdict:
    """A target and the measured value."""

    name: str
    target: str
    measured: str
    holds: bool


def verdicts(results: Results) -> list[Verdict]:
    """The targets that were measured."""
    found = []
    for target in TARGETS:
        try:
            value = target.value(results)
        except LookupError:
            continue
        holds = value >= target.bound if target.at == "least" else value <= target.bound
        bound = f"at {target.at} {target.bound:g}{target.unit}"
        found.append(Verdict(target.name, bound, f"{value:,.2f}{target.unit}", holds))
    return found


def _row(results: Results, section: str, load: str, system: str) -> Row:
    """The row of a load and of the system whose name begins so. Raises `LookupError` without items."""
    for row in results[section].rows:
        if row.load == load and row.system.startswith(system) and row.items:
            return row
    raise LookupError(f"{section}: {load}: {system}")


def _ratio(section: str, load: str, one: str, other: str) -> Callable[[Results], float]:
    """Items a second of one system over those of another."""

    def rate(results: Results, system: str) -> float:
        return statistics.median(_row(results, section, load, system).items_per_second)

    return lambda results: rate(results, one) / rate(results, other)


def _p50(results: Results, system: str) -> float:
    return statistics.median(_row(results, "router", router_alone.ALONE, system).p50_ms)


def _added_at_one(results: Results) -> float:
    return _p50(results, router_alone.THROUGH) - _p50(results, router_alone.DIRECT)


def _per_core(results: Results) -> float:
    return 1e3 / _row(results, "router", router_alone.BUSY, router_alone.THROUGH).cpu["router"]


def _p99(results: Results, system: str) -> float:
    return statistics.median(_row(results, "latency", latency.LOAD, system).p99_ms)


def _p99_under_bulk(results: Results) -> float:
    return _p99(results, latency.CLASSES) / _p99(results, latency.IDLE)


def _goodput(load: str) -> Callable[[Results], float]:
    return lambda results: statistics.median(_row(results, "overload", load, D).figures[overload.GOODPUT])


def _others(load: str) -> Callable[[Results], float]:
    return lambda results: sum(_row(results, "overload", load, D).figures[overload.OTHER])


def _failures(results: Results) -> float:
    """Failures everywhere but under overload, which asks for refusals."""
    refusing = overload.OVERLOADS.values()
    rows = [row for result in results.values() for row in result.rows if row.load not in refusing]
    if not rows:
        raise LookupError("nothing was measured")
    return float(sum(sum(row.failures.values()) + row.vectors_wrong for row in rows))


SHORT = {concurrency: load.name for concurrency, load in throughput.SHORT.items()}
LISTS, LONG = throughput.LISTS.name, throughput.LONG.name
RECIPES = {"recipe-tiny": recipe.TINY_LOADS[0].name, "recipe-nano": recipe.NANO_LOADS[1].name}
TARGETS = (
    *(
        Target(f"(d) / (a), {load}", bound, "least", _ratio("throughput", load, D, A))
        for load, bound in {SHORT[64]: 4, SHORT[16]: 2.5, SHORT[1]: 1.2, LISTS: 1.2}.items()
    ),
    *(
        Target(f"(d) / (e) JSON, {load}", 4, "least", _ratio(section, load, D, E_JSON))
        for section, load in RECIPES.items()
    ),
    *(
        Target(f"(d) / (c), {load}", 0.9, "least", _ratio("throughput", load, D, C))
        for load in (SHORT[16], SHORT[64], SHORT[256], LISTS, LONG)
    ),
    Target("router adds to the p50 at concurrency 1", 1.5, "most", _added_at_one, " ms"),
    Target("query p99 under bulk / idle", 3, "most", _p99_under_bulk),
    *(
        Target(f"{load}: goodput / capacity", 0.9, "least", _goodput(load))
        for load in overload.OVERLOADS.values()
    ),
    *(
        Target(f"{load}: replies neither in time nor 429", 0, "most", _others(load), "")
        for load in overload.OVERLOADS.values()
    ),
    Target("router alone, base64, requests per CPU second", 2500, "least", _per_core, "/s"),
    Target("failures and wrong vectors, overload aside", 0, "most", _failures, ""),
)
