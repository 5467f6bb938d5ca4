"""Whether a run holds its objectives."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from loadtests import estimates, results
from loadtests.bounds import bounded, spaced, there, times, whose
from loadtests.confidence import Estimate
from loadtests.confidence import ratio as ratio_of
from loadtests.objectives import BOUNDS, Baseline, Objective, Objectives
from loadtests.results import Measured, Run


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


def _no_wrong(run: Run) -> Line:
    count = float(_failed_checks(run))
    return Line(
        f"wrong replies and vectors: {count:,.0f}, at most 0", 0.0, count, count, count, count == 0, False
    )


def _failed_checks(run: Run) -> int:
    return results.wrong(run) + len(run.golden.complaints)


def _judged(run: Run, objective: Objective) -> Iterator[Line]:
    who = whose(objective)
    if objective.capacity is not None:
        found = None
        if run.capacity:
            found = Estimate(run.capacity.rate, run.capacity.rate, run.capacity.fails_at or run.capacity.rate)
        yield _line(f"{who}capacity", found, objective.capacity, "least", "requests/s")
    if not any(getattr(objective, name) is not None for name in BOUNDS if name != "capacity"):
        return
    segments, absent = _usual(run), set[str]()
    if objective.segments is not None:
        segments = [measured for measured in run.segments if measured.segment.name in objective.segments]
        absent = set(objective.segments) - {measured.segment.name for measured in segments}
    for name in sorted(absent):
        yield _nothing(f"{who}no such segment, {name}: there is nothing to hold it against")
    if not segments and not absent:
        yield _nothing(f"{who}no segment: there is nothing to hold it against")
    if segments and not there(segments, objective.flow):
        yield _nothing(f"{who}no such flow: there is nothing to hold it against")
        return
    for measured in segments:
        yield from _in_segment(run, measured, objective, f"{who}{measured.segment.name}: ")


def _usual(run: Run) -> list[Measured]:
    """Which segments are judged where none is named: all; of a search, those that confirm what it found."""
    if run.capacity is None:
        return run.segments
    found = run.capacity.rate, run.capacity.rate
    return [
        measured
        for measured in run.segments
        if measured.segment.name.startswith("confirm ") and measured.segment.rate == found
    ]


def _in_segment(run: Run, measured: Measured, objective: Objective, who: str) -> Iterator[Line]:
    for what, found, bound, at, unit in bounded([measured], objective):
        yield _line(f"{who}{what}", found, bound, at, unit)
    if (limit := objective.p99_over_idle_p50) is not None:
        flow = objective.flow
        # Of several flows together there was no p50 before the load.
        only = next(iter(run.idle.values())) if len(run.idle) == 1 else None
        idle = run.idle.get(flow) if flow else only
        p99 = estimates.latency([measured], 0.99, flow)
        yield _line(
            f"{who}p99 / p50 before the load", times(p99, 1 / idle.p50) if idle else None, limit, "most", "x"
        )


def _against(run: Run, bounds: Baseline, other: Run | None) -> Iterator[Line]:
    if other is None:
        yield _nothing("[baseline]: no run to hold it against; give --baseline")
        return
    if count := _failed_checks(other):
        yield _nothing(f"[baseline]: {count} of its checks failed, so its figures do not count")
        return
    if bounds.capacity is not None:
        pair = (run.capacity, other.capacity)
        ratio = pair[0].rate / pair[1].rate if pair[0] and pair[1] and pair[1].rate else None
        found = Estimate(ratio, ratio, ratio) if ratio is not None else None
        yield _line("capacity / baseline", found, bounds.capacity, "least", "x")
    if bounds.p50 is bounds.p99 is bounds.throughput is None:
        return
    before = {_load(measured): measured for measured in other.segments}
    matched = [(before[_load(its)], its) for its in run.segments if _load(its) in before]
    if not matched:
        yield _nothing("[baseline]: it has no segment of the same name and load")
    for old, new in matched:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            if (bound := getattr(bounds, name)) is not None:
                found = _ratio(estimates.latency([new], share), estimates.latency([old], share))
                yield _line(f"{new.segment.name}: {name} / baseline", found, bound, "most", "x")
        if bounds.throughput is not None:
            found = _ratio(estimates.throughput([new]), estimates.throughput([old]))
            yield _line(f"{new.segment.name}: throughput / baseline", found, bounds.throughput, "least", "x")


def _load(measured: Measured) -> tuple[object, ...]:
    return measured.segment.name, measured.segment.rate, measured.segment.users


def _nothing(text: str) -> Line:
    return Line(text, 0.0, None, 0.0, 0.0, False, False)


def _line(text: str, found: Estimate | None, bound: float, at: Literal["least", "most"], unit: str) -> Line:
    limit = f"at {at} {bound:g}{spaced(unit)}"
    if found is None:
        return Line(f"{text}: nothing was measured, {limit}", bound, None, 0.0, 0.0, False, False)
    value, low, high = found
    fits = value <= bound if at == "most" else value >= bound
    close = low <= bound <= high and low != high
    measured = f"{value:.4g}{spaced(unit)} ({low:.4g} to {high:.4g})"
    return Line(f"{text}: {measured}, {limit}", bound, value, low, high, fits, close)


def _ratio(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    return ratio_of(one, other) if one and other and one.value and other.value else None
