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

    def value(results: Results) -> float:
        rates = [
            statistics.median(_row(results, section, load, system).items_per_second)
            for system in (one, other)
        ]
        return rates[0] / rates[1]

    return value


def _added_at_one(results: Results) -> float:
    medians = [
        statistics.median(_row(results, "router", router_alone.ALONE, system).p50_ms)
        for system in (router_alone.THROUGH, router_alone.DIRECT)
    ]
    return medians[0] - medians[1]


def _per_core(results: Results) -> float:
    return 1e3 / _row(results, "router", router_alone.BUSY, router_alone.THROUGH).cpu["router"]


def _p99_under_bulk(results: Results) -> float:
    medians = [
        statistics.median(_row(results, "latency", latency.LOAD, system).p99_ms)
        for system in (latency.CLASSES, latency.IDLE)
    ]
    return medians[0] / medians[1]


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


_SHORT = {concurrency: load.name for concurrency, load in throughput.SHORT.items()}
_LISTS = throughput.LISTS.name
TARGETS = (
    Target("(d) / (a), 20-token texts, concurrency 64", 4, "least", _ratio("throughput", _SHORT[64], D, A)),
    Target("(d) / (a), 20-token texts, concurrency 16", 2.5, "least", _ratio("throughput", _SHORT[16], D, A)),
    Target("(d) / (a), 20-token texts, concurrency 1", 1.2, "least", _ratio("throughput", _SHORT[1], D, A)),
    Target("(d) / (a), 32 texts a request", 1.2, "least", _ratio("throughput", _LISTS, D, A)),
    Target(
        "(d) / (e) JSON, 512-token texts, tiny",
        4,
        "least",
        _ratio("recipe-tiny", recipe.TINY_LOADS[0].name, D, E_JSON),
    ),
    Target(
        "(d) / (e) JSON, 512-token texts, nano",
        4,
        "least",
        _ratio("recipe-nano", recipe.NANO_LOADS[1].name, D, E_JSON),
    ),
    *(
        Target(f"(d) / (c), {load}", 0.9, "least", _ratio("throughput", load, D, C))
        for load in (_SHORT[16], _SHORT[64], _SHORT[256], _LISTS, throughput.LONG.name)
    ),
    Target("router adds to the p50 at concurrency 1", 1.5, "most", _added_at_one, " ms"),
    Target("query p99 under bulk / idle", 3, "most", _p99_under_bulk),
    *(
        target
        for tokens, load in overload.OVERLOADS.items()
        for target in (
            Target(f"3x overload, {tokens}-token texts: goodput / capacity", 0.9, "least", _goodput(load)),
            Target(
                f"3x overload, {tokens}-token texts: replies neither in time nor 429",
                0,
                "most",
                _others(load),
                "",
            ),
        )
    ),
    Target("router alone, base64, requests per CPU second", 2500, "least", _per_core, "/s"),
    Target("failures and wrong vectors, overload aside", 0, "most", _failures, ""),
)
