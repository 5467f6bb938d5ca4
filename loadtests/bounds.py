"""The bounds of an objective, each beside what was measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from loadtests import estimates
from loadtests.confidence import Estimate
from loadtests.objectives import Objective
from loadtests.results import Clock, Measured

_LATENCIES: Mapping[str, tuple[float, Clock]] = {
    "p50_ms": (0.5, "total"),
    "p90_ms": (0.9, "total"),
    "p99_ms": (0.99, "total"),
    "p999_ms": (0.999, "total"),
    "service_p99_ms": (0.99, "service"),
    "router_p99_ms": (0.99, "router"),
}


class Bound(NamedTuple):
    """What was found (None: nothing) beside its bound, in `unit`."""

    what: str
    found: Estimate | None
    bound: float
    at: Literal["least", "most"]
    unit: str


def bounded(measured: Sequence[Measured], objective: Objective) -> Iterator[Bound]:
    """Every bound of `objective` that can be held against any load, whatever segments it names."""
    flow = objective.flow
    for name, (share, clock) in _LATENCIES.items():
        if (bound := getattr(objective, name)) is not None:
            found = times(estimates.latency(measured, share, flow, clock), 1e3)
            yield Bound(name.removesuffix("_ms").replace("_", " "), found, bound, "most", "ms")
    if (bound := objective.failure_share) is not None:
        share_found = estimates.failure_share(measured, flow) if estimates.sent(measured, flow) else None
        yield Bound("failures", times(share_found, 100), bound * 100, "most", "%")
    if (bound := objective.throughput) is not None:
        yield Bound("throughput", estimates.throughput(measured, flow), bound, "least", "requests/s")
    if (bound := objective.throughput_share) is not None:
        answered = estimates.answered_share(measured, flow)
        yield Bound("throughput / offered", answered, bound, "least", "")
    if (bound := objective.p99_over_p50) is not None:
        p50, p99 = (estimates.latency(measured, share, flow) for share in (0.5, 0.99))
        yield Bound("p99 / p50", times(p99, 1 / p50.value) if p50 else None, bound, "most", "x")


def there(measured: Sequence[Measured], flow: str | None) -> bool:
    """Whether there was such a flow; None is all of them."""
    return flow is None or any(flow in one.intervals for one in measured)


def whose(objective: Objective) -> str:
    """What a sentence about `objective` begins with."""
    return f"flow {objective.flow}: " if objective.flow else ""


def times(found: Estimate | None, factor: float) -> Estimate | None:
    """In another unit."""
    return Estimate(*(value * factor for value in found)) if found else None


def spaced(unit: str) -> str:
    """As it stands behind a number."""
    return unit if unit in ("", "%", "x") else f" {unit}"
