"""Gate: whether a run meets its objectives."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.confidence import Estimate
from triptych.loadtests.objectives import Objective, Objectives
from triptych.loadtests.results import Clock, Measured, Run, failed_checks, held

_LATENCIES: dict[str, tuple[float, Clock]] = {
    "p50_ms": (0.5, "total"),
    "p90_ms": (0.9, "total"),
    "p99_ms": (0.99, "total"),
    "p999_ms": (0.999, "total"),
    "service_p99_ms": (0.99, "service"),
    "router_p99_ms": (0.99, "router"),
}


class Bound(NamedTuple):
    """A bound of a figure in `unit`, and what was `found` (None: nothing was measured). `where`: flow and
    segment, as a prefix."""

    figure: str
    found: Estimate | None
    bound: float
    at: Literal["least", "most"] = "most"
    unit: str = ""
    where: str = ""

    @property
    def holds(self) -> bool:
        if self.found is None:
            return False
        return self.found.value <= self.bound if self.at == "most" else self.found.value >= self.bound

    @property
    def close(self) -> bool:
        """Whether the bound lies within the confidence interval."""
        found = self.found
        return found is not None and found.low != found.high and found.low <= self.bound <= found.high

    @property
    def text(self) -> str:
        limit = f"at {self.at} {self.amount(self.bound)}{', close' if self.close else ''}"
        return f"{self.where}{self.figure}: {self.measured}, {limit}"

    @property
    def measured(self) -> str:
        """The value with its interval."""
        if self.found is None:
            return "nothing was measured"
        value, low, high = map(self.amount, self.found)
        return value + (f" ({low} to {high})" if low != high else "")

    def amount(self, value: float) -> str:
        """A value with the unit."""
        return f"{value:.4g}{'' if self.unit in ('', '%', 'x') else ' '}{self.unit}"


def judge(run: Run, objectives: Objectives) -> list[Bound]:
    """Every bound of the objectives, beside what the run has; a run passes if all hold."""
    wrong = failed_checks(run)
    found = [Bound("wrong replies and vectors", Estimate(wrong, wrong, wrong), 0)]
    for objective in objectives.objective:
        found += _judged(run, objective)
    return found


def passed(bounds: Sequence[Bound]) -> bool:
    """Whether every bound holds."""
    return all(bound.holds for bound in bounds)


def bounded(measured: Sequence[Measured], objective: Objective, where: str = "") -> Iterator[Bound]:
    """The bounds of `objective` that apply to any load, in any segment."""
    flow = objective.flow
    for name, (share, clock) in _LATENCIES.items():
        if (bound := getattr(objective, name)) is not None:
            found = times(estimates.latency(measured, share, flow, clock), 1e3)
            yield Bound(name.removesuffix("_ms").replace("_", " "), found, bound, unit="ms", where=where)
    if (bound := objective.failure_share) is not None:
        failed = times(estimates.failure_share(measured, flow), 100)
        yield Bound("failures", failed, bound * 100, unit="%", where=where)
    if (bound := objective.throughput) is not None:
        answered = estimates.rate(measured, "done", flow)
        yield Bound("throughput", answered, bound, "least", "requests/s", where)
    if (bound := objective.throughput_share) is not None:
        share_answered = estimates.answered_share(measured, flow)
        yield Bound("throughput / offered", share_answered, bound, "least", where=where)
    if (bound := objective.p99_over_p50) is not None:
        p50, p99 = (estimates.latency(measured, share, flow) for share in (0.5, 0.99))
        yield Bound("p99 / p50", times(p99, 1 / p50.value) if p50 else None, bound, unit="x", where=where)


def has_flow(measured: Sequence[Measured], flow: str | None) -> bool:
    """Whether the flow was part of the load; None stands for all flows."""
    return flow is None or any(flow in one.intervals for one in measured)


def times(found: Estimate | None, factor: float) -> Estimate | None:
    """The estimate in another unit."""
    return Estimate(*(value * factor for value in found)) if found else None


def _judged(run: Run, objective: Objective) -> Iterator[Bound]:
    who = objective.who
    if objective.capacity is not None:
        found = None
        if run.capacity:
            found = Estimate(run.capacity.rate, run.capacity.rate, run.capacity.fails_at or run.capacity.rate)
        yield Bound("capacity", found, objective.capacity, "least", "requests/s", who)
    if objective.bounds == {"capacity"}:
        return
    segments = _segments(run, objective)
    missing = set(objective.segments or ()) - {one.segment.name for one in segments}
    for name in sorted(missing) or ([] if segments else ["any"]):
        yield Bound(f"segment {name}", None, 1, "least", where=who)
    if segments and not has_flow(segments, objective.flow):
        yield Bound("requests of this flow", None, 1, "least", where=who)
        return
    for measured in segments:
        where = f"{who}{measured.segment.name}: "
        yield from bounded([measured], objective, where)
        if (limit := objective.p99_over_idle_p50) is not None:
            over = _over_idle(run, measured, objective.flow)
            yield Bound("p99 / p50 before the load", over, limit, unit="x", where=where)


def _segments(run: Run, objective: Objective) -> list[Measured]:
    """The named segments; by default all, or after a search those that confirmed its result."""
    if objective.segments is not None:
        return [measured for measured in run.segments if measured.segment.name in objective.segments]
    if run.capacity is None:
        return run.segments
    return [measured for measured in held(run) if measured.segment.name.startswith("confirm ")]


def _over_idle(run: Run, measured: Measured, flow: str | None) -> Estimate | None:
    # Several flows together have no common p50 before the load.
    only = next(iter(run.idle.values())) if len(run.idle) == 1 else None
    idle = run.idle.get(flow) if flow else only
    return times(estimates.latency([measured], 0.99, flow), 1 / idle.p50) if idle else None
