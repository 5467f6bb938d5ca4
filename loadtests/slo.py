"""Gate: whether a run meets its objectives."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.confidence import Estimate
from triptych.loadtests.objectives import Objective, Objectives
from triptych.loadtests.results import Measured, Run, failed_checks, held

_LATENCIES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


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
        """A value with the unit; `x` is the unit of bench's ratios."""
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
    for name, share in _LATENCIES.items():
        if (bound := getattr(objective, f"{name}_ms")) is not None:
            found = times(estimates.latency(measured, share, flow), 1e3)
            yield Bound(name, found, bound, unit="ms", where=where)
    if (bound := objective.failure_share) is not None:
        failed = times(estimates.failure_share(measured, flow), 100)
        yield Bound("failures", failed, bound * 100, unit="%", where=where)
    if (bound := objective.throughput) is not None:
        answered = estimates.rate(measured, "done", flow)
        yield Bound("throughput", answered, bound, "least", "requests/s", where)


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
        yield from bounded([measured], objective, f"{who}{measured.segment.name}: ")


def _segments(run: Run, objective: Objective) -> list[Measured]:
    """The named segments; by default all, or after a search those that confirmed its result."""
    if objective.segments is not None:
        return [measured for measured in run.segments if measured.segment.name in objective.segments]
    if run.capacity is None:
        return run.segments
    return [measured for measured in held(run) if measured.segment.name.startswith("confirm ")]
