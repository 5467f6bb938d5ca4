"""Whether a run, or one rate of a search, holds its objectives (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from loadtests import estimates, results
from loadtests.estimates import Estimate
from loadtests.objectives import BOUNDS, Baseline, Objective, Objectives
from loadtests.results import Clock, Measured, Run

# A p99 of fewer replies rests on one or two of them.
ENOUGH_REPLIES = 200
# In an open loop, less answered than this of what was offered is a queue that grows.
KEPT_UP = 0.9

Verdict = Literal["holds", "fails", "unclear"]


class Line(NamedTuple):
    """One bound beside what was measured, in the same unit. `close`: the confidence interval holds the bound.

    `measured` None: there was nothing to hold against it, which never passes.
    """

    text: str
    bound: float
    measured: float | None
    low: float
    high: float
    holds: bool
    close: bool


class Judgement(NamedTuple):
    """Every bound, and whether all hold."""

    lines: list[Line]

    @property
    def passed(self) -> bool:
        return all(line.holds for line in self.lines)


def judge(run: Run, objectives: Objectives, baseline: Run | None = None) -> Judgement:
    """Hold `run` against them; those of `[baseline]` against the run `baseline`."""
    lines = [_no_wrong(run)]
    for objective in objectives.objective:
        lines += _judged(run, objective)
    if objectives.baseline is not None:
        lines += _against(run, objectives.baseline, baseline)
    return Judgement(lines)


def holds(measured: Sequence[Measured], objectives: Objectives) -> tuple[Verdict, str]:
    """Whether an open loop's rate holds, with confidence, and why not.

    "unclear" where a confidence interval holds the bound, or there are fewer than `ENOUGH_REPLIES`.
    Objectives of segments, of capacity and of a baseline say nothing here.
    """
    unclear = ""
    if count := estimates.wrong(measured):
        return "fails", f"{count} wrong replies"
    answered, offered = estimates.throughput(measured), estimates.offered(measured)
    if answered.high < KEPT_UP * offered.value:
        return "fails", f"{answered.value:.1f} of {offered.value:.1f} requests/s answered"
    for objective in objectives.objective:
        for name, estimate, bound in _bounded(measured, objective):
            if estimate is None:
                return "fails", f"{name}: no reply"
            if estimate.low > bound:
                return "fails", f"{name} {_amount(name, estimate.value)}"
            if estimate.high > bound:
                unclear = unclear or f"{name} {_amount(name, estimate.value)}"
    replies = estimates.replies(measured)
    if replies < ENOUGH_REPLIES:
        return "unclear", f"{replies} replies"
    return ("unclear", unclear) if unclear else ("holds", "")


def render(judgement: Judgement) -> str:
    """For the terminal."""
    head = "PASS" if judgement.passed else "FAIL"
    lines = [
        f"{head}: {sum(line.holds for line in judgement.lines)} of {len(judgement.lines)} objectives hold"
    ]
    for line in judgement.lines:
        mark = "ok  " if line.holds else "FAIL"
        lines.append(f"  {mark}  {line.text}{', close' if line.close else ''}")
    return "\n".join(lines)


_LATENCIES: Mapping[str, tuple[float, Clock]] = {
    "p50_ms": (0.5, "total"),
    "p90_ms": (0.9, "total"),
    "p99_ms": (0.99, "total"),
    "p999_ms": (0.999, "total"),
    "service_p99_ms": (0.99, "service"),
    "router_p99_ms": (0.99, "router"),
}


def _bounded(
    measured: Sequence[Measured], objective: Objective
) -> Iterator[tuple[str, Estimate | None, float]]:
    for name, (share, clock) in _LATENCIES.items():
        if (bound := getattr(objective, name)) is not None:
            yield name, _times(estimates.latency(measured, share, objective.flow, clock), 1e3), bound
    if (bound := objective.failure_share) is not None:
        found = estimates.failure_share(measured, objective.flow)
        # That next to nothing failed could only be told with certainty from very many requests.
        yield "failure_share", found._replace(high=found.value) if found.value <= bound else found, bound


def _no_wrong(run: Run) -> Line:
    count = float(results.wrong(run) + len(run.golden.complaints))
    return Line(
        f"wrong replies and vectors: {count:,.0f}, at most 0", 0.0, count, count, count, count == 0, False
    )


def _judged(run: Run, objective: Objective) -> Iterator[Line]:
    who = f"flow {objective.flow}: " if objective.flow else ""
    if objective.capacity is not None:
        found = (
            Estimate(run.capacity.rate, run.capacity.rate, run.capacity.fails_at or run.capacity.rate)
            if (run.capacity)
            else None
        )
        yield _line(f"{who}capacity", found, objective.capacity, "least", "requests/s")
    if not any(getattr(objective, name) is not None for name in BOUNDS if name != "capacity"):
        return
    segments = [
        measured
        for measured in run.segments
        if objective.segments is None or measured.segment.name in objective.segments
    ]
    known = objective.flow is None or any(objective.flow in measured.intervals for measured in segments)
    if not segments or not known:
        what = "no such flow" if segments else "no such segment"
        yield Line(f"{who}{what}: there is nothing to hold it against", 0.0, None, 0.0, 0.0, False, False)
        return
    for measured in segments:
        yield from _in_segment(run, measured, objective, f"{who}{measured.segment.name}: ")


def _in_segment(run: Run, measured: Measured, objective: Objective, who: str) -> Iterator[Line]:
    one, flow = [measured], objective.flow
    p99 = estimates.latency(one, 0.99, flow)
    for name, (share, clock) in _LATENCIES.items():
        if (bound := getattr(objective, name)) is not None:
            found = _times(estimates.latency(one, share, flow, clock), 1e3)
            yield _line(f"{who}{name.removesuffix('_ms').replace('_', ' ')}", found, bound, "most", "ms")
    if (bound := objective.failure_share) is not None:
        found = _times(estimates.failure_share(one, flow), 100)
        yield _line(f"{who}failures", found, bound * 100, "most", "%")
    answered, offered = estimates.throughput(one, flow), estimates.offered(one, flow)
    if (bound := objective.throughput) is not None:
        yield _line(f"{who}throughput", answered, bound, "least", "requests/s")
    if (bound := objective.throughput_share) is not None:
        share_of = _times(answered, 1 / offered.value) if offered.value else None
        yield _line(f"{who}throughput / offered", share_of, bound, "least", "")
    if (bound := objective.p99_over_p50) is not None:
        p50 = estimates.latency(one, 0.5, flow)
        yield _line(f"{who}p99 / p50", _times(p99, 1 / p50.value) if p50 else None, bound, "most", "x")
    if (bound := objective.p99_over_idle_p50) is not None:
        idle = (
            run.idle.get(flow)
            if flow
            else next(iter(run.idle.values()), None)
            if len(run.idle) == 1
            else None
        )
        ratio = _times(p99, 1 / idle.p50) if idle else None
        yield _line(f"{who}p99 / p50 before the load", ratio, bound, "most", "x")


def _against(run: Run, bounds: Baseline, other: Run | None) -> Iterator[Line]:
    if other is None:
        yield Line(
            "[baseline]: no run to hold it against; give --baseline", 0.0, None, 0.0, 0.0, False, False
        )
        return
    if bounds.capacity is not None:
        pair = (run.capacity, other.capacity)
        ratio = pair[0].rate / pair[1].rate if pair[0] and pair[1] and pair[1].rate else None
        found = Estimate(ratio, ratio, ratio) if ratio is not None else None
        yield _line("capacity / baseline", found, bounds.capacity, "least", "x")
    before = {measured.segment.name: measured for measured in other.segments}
    matched = [(before[its.segment.name], its) for its in run.segments if its.segment.name in before]
    if not matched:
        yield Line("[baseline]: it has no segment of the same name", 0.0, None, 0.0, 0.0, False, False)
    for old, new in matched:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            if (bound := getattr(bounds, name)) is not None:
                found = _ratio(estimates.latency([new], share), estimates.latency([old], share))
                yield _line(f"{new.segment.name}: {name} / baseline", found, bound, "most", "x")
        if bounds.throughput is not None:
            found = _ratio(estimates.throughput([new]), estimates.throughput([old]))
            yield _line(f"{new.segment.name}: throughput / baseline", found, bounds.throughput, "least", "x")


def _line(text: str, found: Estimate | None, bound: float, at: Literal["least", "most"], unit: str) -> Line:
    limit = f"at {at} {bound:g}{_spaced(unit)}"
    if found is None:
        return Line(f"{text}: nothing was measured, {limit}", bound, None, 0.0, 0.0, False, False)
    value, low, high = found
    fits = value <= bound if at == "most" else value >= bound
    close = low <= bound <= high and low != high
    measured = f"{value:.4g}{_spaced(unit)} ({low:.4g} to {high:.4g})"
    return Line(f"{text}: {measured}, {limit}", bound, value, low, high, fits, close)


def _spaced(unit: str) -> str:
    return unit if unit in ("", "%", "x") else f" {unit}"


def _times(found: Estimate | None, factor: float) -> Estimate | None:
    return Estimate(*(value * factor for value in found)) if found else None


def _ratio(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    """Wider than it need be: both ends at once."""
    if one is None or other is None or not other.low:
        return None
    return Estimate(one.value / other.value, one.low / other.high, one.high / other.low)


def _amount(name: str, value: float) -> str:
    return f"{value:.2%}" if name == "failure_share" else f"{value:,.0f} ms"
