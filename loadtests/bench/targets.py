"""What was set out to be reached, as ratios within one run, and whether it was."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from loadtests.bench.results import Result, Row
from loadtests.bench.sections import latency, overload, recipe, router_alone, throughput
from loadtests.bench.stats import spread

A, C, D, E_JSON = "(a)", "(c)", "(d)", "(e) token-level output, JSON"
Results = Mapping[str, Result]


@dataclass(frozen=True)
class Target:
    """A bound on what `value` finds in the results, which is None where it was not measured."""

    name: str
    bound: float
    at: Literal["least", "most"]
    value: Callable[[Results], float | None]
    unit: str = "x"


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured."""

    name: str
    target: str
    measured: str
    holds: bool


def verdicts(results: Results) -> list[Verdict]:
    """One for each target that the results say something of."""
    found = []
    for target in TARGETS:
        value = target.value(results)
        if value is None:
            continue
        holds = value >= target.bound if target.at == "least" else value <= target.bound
        bound = f"at {target.at} {target.bound:g}{target.unit}"
        found.append(Verdict(target.name, bound, f"{value:,.2f}{target.unit}", holds))
    return found


def _rate(section: str, load: str, one: str, other: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        pair = _rows(results, section, (load, one), (load, other))
        return _median(pair[0]) / _median(pair[1]) if pair else None

    return value


def _added_at_one(results: Results) -> float | None:
    load = router_alone.ALONE
    pair = _rows(results, "router", (load, router_alone.THROUGH), (load, router_alone.DIRECT))
    return spread(pair[0].p50_ms).median - spread(pair[1].p50_ms).median if pair else None


def _per_core(results: Results) -> float | None:
    pair = _rows(results, "router", (router_alone.BUSY, router_alone.THROUGH))
    return 1e3 / pair[0].cpu["router"] if pair else None


def _p99_under_bulk(results: Results) -> float | None:
    pair = _rows(results, "latency", (latency.LOAD, latency.CLASSES), (latency.LOAD, latency.IDLE))
    return spread(pair[0].p99_ms).median / spread(pair[1].p99_ms).median if pair else None


def _overload(tokens: int, figure: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        pair = _rows(results, "overload", (overload.OVERLOADS[tokens], D))
        return spread(pair[0].figures[figure]).median if pair else None

    return value


def _others(tokens: int) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        pair = _rows(results, "overload", (overload.OVERLOADS[tokens], D))
        return sum(pair[0].figures[overload.OTHER]) if pair else None

    return value


def _failures(results: Results) -> float | None:
    """Everywhere except where refusals are what is asked for."""
    refusing = overload.OVERLOADS.values()
    rows = [row for result in results.values() for row in result.rows if row.load not in refusing]
    return float(sum(sum(row.failures.values()) + row.vectors_wrong for row in rows)) if rows else None


def _rows(results: Results, section: str, *wanted: tuple[str, str]) -> list[Row] | None:
    """Those rows, or None where one is missing or nothing in it succeeded."""
    if section not in results:
        return None
    rows = [results[section].row(load, system) for load, system in wanted]
    found = [row for row in rows if row is not None and row.items]
    return found if len(found) == len(wanted) else None


def _median(row: Row) -> float:
    return spread(row.items_per_second).median


def _against_worker() -> Iterable[Target]:
    for load in (*throughput.SHORT.values(), throughput.LISTS, throughput.LONG):
        if load.concurrency >= 16 or load is throughput.LISTS:
            yield Target(f"(d) / (c), {load.name}", 0.9, "least", _rate("throughput", load.name, D, C))


def _under_overload() -> Iterable[Target]:
    for tokens in overload.SIZES:
        name = f"3x overload, {tokens}-token texts: "
        yield Target(f"{name}goodput / capacity", 0.9, "least", _overload(tokens, overload.GOODPUT))
        yield Target(f"{name}replies neither in time nor 429", 0, "most", _others(tokens), "")


_SHORT = {concurrency: load.name for concurrency, load in throughput.SHORT.items()}
TARGETS = (
    Target("(d) / (a), 20-token texts, concurrency 64", 4, "least", _rate("throughput", _SHORT[64], D, A)),
    Target("(d) / (a), 20-token texts, concurrency 16", 2.5, "least", _rate("throughput", _SHORT[16], D, A)),
    Target("(d) / (a), 20-token texts, concurrency 1", 1.2, "least", _rate("throughput", _SHORT[1], D, A)),
    Target("(d) / (a), 32 texts a request", 1.2, "least", _rate("throughput", throughput.LISTS.name, D, A)),
    Target(
        "(d) / (e) JSON, 512-token texts, tiny",
        4,
        "least",
        _rate("recipe-tiny", recipe.TINY_LOADS[0].name, D, E_JSON),
    ),
    Target(
        "(d) / (e) JSON, 512-token texts, nano",
        4,
        "least",
        _rate("recipe-nano", recipe.NANO_LOADS[1].name, D, E_JSON),
    ),
    *_against_worker(),
    Target("router adds to the p50 at concurrency 1", 1.5, "most", _added_at_one, " ms"),
    Target("query p99 under bulk / idle", 3, "most", _p99_under_bulk),
    *_under_overload(),
    Target("router alone, base64, requests per CPU second", 2500, "least", _per_core, "/s"),
    Target("failures and wrong vectors, overload aside", 0, "most", _failures, ""),
)
