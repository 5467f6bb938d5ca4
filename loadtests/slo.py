"""Whether a run, or one rate of a capacity search, meets its objectives."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.confidence import Estimate
from triptych.loadtests.objectives import Objective, Objectives
from triptych.loadtests.results import Measured, Run, Verdict, failed_checks, held, wrong

# A p99 of fewer replies rests on one or two of them.
ENOUGH_REPLIES = 200
ENOUGH_FOR_P999 = 2000
# Below this share of answered to offered requests, the queue grows.
KEPT_UP = 0.9

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
    def verdict(self) -> Verdict:
        """Only very many requests could prove a small share of failures, so its value decides."""
        if self.holds and (self.figure == "failures" or not self.close):
            return "holds"
        return "unclear" if self.close else "fails"

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


class Ruling(NamedTuple):
    """A verdict, its reason, and whether the values themselves meet the objectives, however close."""

    verdict: Verdict
    why: str = ""
    met: bool = False


def judge(run: Run, objectives: Objectives) -> list[Bound]:
    """Every bound of the objectives, beside what the run has; a run passes if all hold."""
    count = failed_checks(run)
    found = [Bound("wrong replies and vectors", Estimate(count, count, count), 0)]
    for objective in objectives.objective:
        found += _judged(run, objective)
    return found


def passed(bounds: Sequence[Bound]) -> bool:
    """Whether every bound holds."""
    return all(bound.holds for bound in bounds)


def rule(measured: Sequence[Measured], objectives: Objectives) -> Ruling:
    """The verdict on a rate of a search.

    "unclear": a bound lies within the confidence interval, or a judged flow has too few replies. Objectives
    apply whatever segments they name.
    """
    if count := wrong(measured):
        return Ruling("fails", f"{count} wrong replies")
    answered, offered = estimates.rate(measured, "done"), estimates.rate(measured, "sent")
    if answered.high < KEPT_UP * offered.value:
        return Ruling("fails", f"{answered.value:.1f} of {offered.value:.1f} requests/s answered")
    unclear: list[str] = []
    met = True
    for objective in objectives.of_rates:
        flow, who = objective.flow, objective.who
        if not _has_flow(measured, flow):
            return Ruling("fails", f"{who}no such flow")
        for bound in _bounded(measured, objective, who) if estimates.sent(measured, flow) else ():
            why = f"{who}{bound.figure} {bound.measured}"
            if bound.verdict == "fails":
                return Ruling("fails", why)
            if bound.verdict == "unclear":
                unclear.append(why)
                met = met and bound.holds
        if (replies := estimates.replies(measured, flow)) < _enough(objective):
            unclear.append(f"{who}{replies} of {_enough(objective)} replies")
    return Ruling("unclear", unclear[0], met) if unclear else Ruling("holds", met=True)


def requests_needed(objectives: Objectives, shares: Mapping[str, float]) -> float:
    """How many requests bring enough replies of every judged flow; `shares`: of each flow in the requests."""
    return max(_enough(one) / shares.get(one.flow or "", 1.0) for one in objectives.of_rates)


def _enough(objective: Objective) -> int:
    return ENOUGH_REPLIES if objective.p999_ms is None else ENOUGH_FOR_P999


def _bounded(measured: Sequence[Measured], objective: Objective, where: str) -> Iterator[Bound]:
    """The bounds of `objective` that apply to any load, in any segment."""
    flow = objective.flow
    for name, share in _LATENCIES.items():
        if (bound := getattr(objective, f"{name}_ms")) is not None:
            found = _times(estimates.latency(measured, share, flow), 1e3)
            yield Bound(name, found, bound, unit="ms", where=where)
    if (bound := objective.failure_share) is not None:
        failed = _times(estimates.failure_share(measured, flow), 100)
        yield Bound("failures", failed, bound * 100, unit="%", where=where)
    if (bound := objective.throughput) is not None:
        answered = estimates.rate(measured, "done", flow)
        yield Bound("throughput", answered, bound, "least", "requests/s", where)


def _has_flow(measured: Sequence[Measured], flow: str | None) -> bool:
    return flow is None or any(flow in one.intervals for one in measured)


def _times(found: Estimate | None, factor: float) -> Estimate | None:
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
    if segments and not _has_flow(segments, objective.flow):
        yield Bound("requests of this flow", None, 1, "least", where=who)
        return
    for measured in segments:
        yield from _bounded([measured], objective, f"{who}{measured.segment.name}: ")


def _segments(run: Run, objective: Objective) -> list[Measured]:
    """The named segments; by default all, or after a search those that confirmed its result."""
    if objective.segments is not None:
        return [measured for measured in run.segments if measured.segment.name in objective.segments]
    if run.capacity is None:
        return run.segments
    return [measured for measured in held(run) if measured.segment.name.startswith("confirm ")]
