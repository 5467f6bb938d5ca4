"""Gate: whether a run meets its objectives."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from loadtests import estimates
from loadtests.confidence import Estimate
from loadtests.confidence import ratio as ratio_of
from loadtests.objectives import BOUNDS, Baseline, Objective, Objectives
from loadtests.results import Clock, Measured, Run, failed_checks

_LATENCIES: dict[str, tuple[float, Clock]] = {
    "p50_ms": (0.5, "total"),
    "p90_ms": (0.9, "total"),
    "p99_ms": (0.99, "total"),
    "p999_ms": (0.999, "total"),
    "service_p99_ms": (0.99, "service"),
    "router_p99_ms": (0.99, "router"),
}


class Bound(NamedTuple):
    """A bound beside the figure that it limits, both in `unit`. `found` is None if nothing was measured."""

    what: str
    found: Estimate | None
    bound: float
    at: Literal["least", "most"]
    unit: str

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
        unit, limit = spaced(self.unit), f"at {self.at} {self.bound:g}{spaced(self.unit)}"
        if self.found is None:
            return f"{self.what}: nothing was measured, {limit}"
        value, low, high = self.found
        return f"{self.what}: {value:.4g}{unit} ({low:.4g} to {high:.4g}), {limit}"


class Line(NamedTuple):
    """One line of a judgement. `close`: the bound lies within the confidence interval."""

    text: str
    holds: bool
    close: bool = False
    bound: Bound | None = None


class Judgement(NamedTuple):
    """The result of each bound."""

    lines: list[Line]

    @property
    def passed(self) -> bool:
        return all(line.holds for line in self.lines)


def judge(run: Run, objectives: Objectives, baseline: Run | None = None) -> Judgement:
    """Judge `run` by its objectives; those of `[baseline]` compare it with the run `baseline`."""
    count = failed_checks(run)
    lines = [Line(f"wrong replies and vectors: {count:,}, at most 0", not count)]
    for objective in objectives.objective:
        lines += _judged(run, objective)
    if objectives.baseline is not None:
        lines += _against(run, objectives.baseline, baseline)
    return Judgement(lines)


def render(judgement: Judgement) -> str:
    """The judgement as text for the terminal."""
    head, held = "PASS" if judgement.passed else "FAIL", sum(line.holds for line in judgement.lines)
    lines = [f"{head}: {held} of {len(judgement.lines)} objectives are met"]
    for line in judgement.lines:
        lines.append(f"  {'ok  ' if line.holds else 'FAIL'}  {line.text}{', close' if line.close else ''}")
    return "\n".join(lines)


def bounded(measured: Sequence[Measured], objective: Objective) -> Iterator[Bound]:
    """The bounds of `objective` that apply to any load, in any segment."""
    flow = objective.flow
    for name, (share, clock) in _LATENCIES.items():
        if (bound := getattr(objective, name)) is not None:
            found = times(estimates.latency(measured, share, flow, clock), 1e3)
            yield Bound(name.removesuffix("_ms").replace("_", " "), found, bound, "most", "ms")
    if (bound := objective.failure_share) is not None:
        failed = estimates.failure_share(measured, flow) if estimates.sent(measured, flow) else None
        yield Bound("failures", times(failed, 100), bound * 100, "most", "%")
    if (bound := objective.throughput) is not None:
        yield Bound("throughput", estimates.throughput(measured, flow), bound, "least", "requests/s")
    if (bound := objective.throughput_share) is not None:
        answered = estimates.answered_share(measured, flow)
        yield Bound("throughput / offered", answered, bound, "least", "")
    if (bound := objective.p99_over_p50) is not None:
        p50, p99 = (estimates.latency(measured, share, flow) for share in (0.5, 0.99))
        yield Bound("p99 / p50", times(p99, 1 / p50.value) if p50 else None, bound, "most", "x")


def has_flow(measured: Sequence[Measured], flow: str | None) -> bool:
    """Whether the flow was part of the load; None stands for all flows."""
    return flow is None or any(flow in one.intervals for one in measured)


def prefix(objective: Objective) -> str:
    """What a line about `objective` starts with."""
    return f"flow {objective.flow}: " if objective.flow else ""


def times(found: Estimate | None, factor: float) -> Estimate | None:
    """The estimate in another unit."""
    return Estimate(*(value * factor for value in found)) if found else None


def spaced(unit: str) -> str:
    """The unit as it follows a number."""
    return unit if unit in ("", "%", "x") else f" {unit}"


def _judged(run: Run, objective: Objective) -> Iterator[Line]:
    who = prefix(objective)
    if objective.capacity is not None:
        found = None
        if run.capacity:
            found = Estimate(run.capacity.rate, run.capacity.rate, run.capacity.fails_at or run.capacity.rate)
        yield _line(who, Bound("capacity", found, objective.capacity, "least", "requests/s"))
    if all(getattr(objective, name) is None for name in BOUNDS if name != "capacity"):
        return
    segments = _segments(run, objective)
    for name in set(objective.segments or ()) - {one.segment.name for one in segments}:
        yield Line(f"{who}there is no segment {name} to judge", False)
    if not segments and not objective.segments:
        yield Line(f"{who}there is no segment to judge", False)
    if segments and not has_flow(segments, objective.flow):
        yield Line(f"{who}there is no such flow to judge", False)
        return
    for measured in segments:
        name = f"{who}{measured.segment.name}: "
        for bound in bounded([measured], objective):
            yield _line(name, bound)
        if (limit := objective.p99_over_idle_p50) is not None:
            found = _over_idle(run, measured, objective.flow)
            yield _line(name, Bound("p99 / p50 before the load", found, limit, "most", "x"))


def _segments(run: Run, objective: Objective) -> list[Measured]:
    """The named segments; by default all, or after a search those that confirm its result."""
    if objective.segments is not None:
        return [measured for measured in run.segments if measured.segment.name in objective.segments]
    if run.capacity is None:
        return run.segments
    found = run.capacity.rate, run.capacity.rate
    return [
        measured
        for measured in run.segments
        if measured.segment.name.startswith("confirm ") and measured.segment.rate == found
    ]


def _over_idle(run: Run, measured: Measured, flow: str | None) -> Estimate | None:
    # Several flows together have no common p50 before the load.
    only = next(iter(run.idle.values())) if len(run.idle) == 1 else None
    idle = run.idle.get(flow) if flow else only
    return times(estimates.latency([measured], 0.99, flow), 1 / idle.p50) if idle else None


def _against(run: Run, bounds: Baseline, other: Run | None) -> Iterator[Line]:
    if other is None:
        yield Line("[baseline]: give the run to compare with by --baseline", False)
        return
    if count := failed_checks(other):
        yield Line(f"[baseline]: {count} checks of the baseline failed, so it cannot be used", False)
        return
    if bounds.capacity is not None:
        pair = (run.capacity, other.capacity)
        ratio = pair[0].rate / pair[1].rate if pair[0] and pair[1] and pair[1].rate else None
        found = None if ratio is None else Estimate(ratio, ratio, ratio)
        yield _line("", Bound("capacity / baseline", found, bounds.capacity, "least", "x"))
    if bounds.p50 is bounds.p99 is bounds.throughput is None:
        return
    before = {_load(measured): measured for measured in other.segments}
    matched = [(before[_load(its)], its) for its in run.segments if _load(its) in before]
    if not matched:
        yield Line("[baseline]: no segment has the same name and load in both runs", False)
    for old, new in matched:
        name = f"{new.segment.name}: "
        for figure, share in (("p50", 0.5), ("p99", 0.99)):
            if (limit := getattr(bounds, figure)) is not None:
                found = _ratio(estimates.latency([new], share), estimates.latency([old], share))
                yield _line(name, Bound(f"{figure} / baseline", found, limit, "most", "x"))
        if (limit := bounds.throughput) is not None:
            found = _ratio(estimates.throughput([new]), estimates.throughput([old]))
            yield _line(name, Bound("throughput / baseline", found, limit, "least", "x"))


def _load(measured: Measured) -> tuple[object, ...]:
    return measured.segment.name, measured.segment.rate, measured.segment.users


def _line(who: str, bound: Bound) -> Line:
    return Line(f"{who}{bound.text}", bound.holds, bound.close, bound)


def _ratio(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    return ratio_of(one, other) if one and other and one.value and other.value else None
