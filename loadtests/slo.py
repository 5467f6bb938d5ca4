"""Whether a run, or one rate of a search, holds its objectives."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from loadtests import estimates, results
from loadtests.confidence import Estimate
from loadtests.confidence import ratio as ratio_of
from loadtests.objectives import BOUNDS, Baseline, Objective, Objectives
from loadtests.results import Clock, Measured, Run

# A p99 of fewer replies rests on one or two of them.
ENOUGH_REPLIES = 200
ENOUGH_FOR_P999 = 2000
# In an open loop, less answered than this of what was offered is a queue that grows.
KEPT_UP = 0.9

Verdict = Literal["holds", "fails", "unclear"]


class Few(NamedTuple):
    """Too few replies for a verdict."""

    replies: int
    needed: int


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

    "unclear" where a confidence interval holds a bound, or a flow that is judged has too few replies, as
    `too_few` says. Objectives count whatever segments they name. Bounds of the capacity, on what was before
    the load and against a baseline do not; raises `ValueError` where there are no others.
    """
    if count := estimates.wrong(measured):
        return "fails", f"{count} wrong replies"
    answered, offered = estimates.throughput(measured), estimates.offered(measured)
    if answered.high < KEPT_UP * offered.value:
        return "fails", f"{answered.value:.1f} of {offered.value:.1f} requests/s answered"
    unclear, judged = "", 0
    for objective in objectives.objective:
        who, bounds = _whose(objective), list(_bounded(measured, objective))
        judged += len(bounds)
        if bounds and not _there(measured, objective.flow):
            return "fails", f"{who}no such flow"
        if bounds and not estimates.sent(measured, objective.flow):
            unclear = unclear or f"{who}nothing was due"
            continue
        for bound in bounds:
            if bound.found is None:
                return "fails", f"{who}{bound.what}: no reply"
            verdict = _confident(bound, bound.found)
            why = f"{who}{bound.what} {bound.found.value:.4g}{_spaced(bound.unit)}"
            if verdict == "fails":
                return verdict, why
            if verdict == "unclear":
                unclear = unclear or why
        if bounds and (few := _few(measured, objective)):
            unclear = unclear or f"{who}{few.replies} of {few.needed} replies"
    if not judged:
        raise ValueError(
            f"--slo: nothing that a rate is judged by; give at least one of {', '.join(OF_A_RATE)}"
        )
    return ("unclear", unclear) if unclear else ("holds", "")


def too_few(measured: Sequence[Measured], objectives: Objectives) -> Few | None:
    """Of the flows that a rate is judged by, the one that lacks the largest share of what a verdict needs;
    None where all have enough."""
    judged = (
        objective
        for objective in objectives.objective
        if any(getattr(objective, name) is not None for name in OF_A_RATE)
    )
    found = [few for few in (_few(measured, objective) for objective in judged) if few]
    return min(found, key=lambda few: few.replies / few.needed, default=None)


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


OF_A_RATE = tuple(name for name in BOUNDS if name not in ("capacity", "p99_over_idle_p50"))


class _Bound(NamedTuple):
    """What was found (None: nothing) beside its bound, in `unit`."""

    what: str
    found: Estimate | None
    bound: float
    at: Literal["least", "most"]
    unit: str


def _bounded(measured: Sequence[Measured], objective: Objective) -> Iterator[_Bound]:
    flow = objective.flow
    for name, (share, clock) in _LATENCIES.items():
        if (bound := getattr(objective, name)) is not None:
            found = _times(estimates.latency(measured, share, flow, clock), 1e3)
            yield _Bound(name.removesuffix("_ms").replace("_", " "), found, bound, "most", "ms")
    if (bound := objective.failure_share) is not None:
        share_found = estimates.failure_share(measured, flow) if estimates.sent(measured, flow) else None
        yield _Bound("failures", _times(share_found, 100), bound * 100, "most", "%")
    if (bound := objective.throughput) is not None:
        yield _Bound("throughput", estimates.throughput(measured, flow), bound, "least", "requests/s")
    if (bound := objective.throughput_share) is not None:
        answered = estimates.answered_share(measured, flow)
        yield _Bound("throughput / offered", answered, bound, "least", "")
    if (bound := objective.p99_over_p50) is not None:
        p50, p99 = (estimates.latency(measured, share, flow) for share in (0.5, 0.99))
        yield _Bound("p99 / p50", _times(p99, 1 / p50.value) if p50 else None, bound, "most", "x")


def _few(measured: Sequence[Measured], objective: Objective) -> Few | None:
    needed = ENOUGH_REPLIES if objective.p999_ms is None else ENOUGH_FOR_P999
    replies = estimates.replies(measured, objective.flow)
    return Few(replies, needed) if replies < needed else None


def _confident(bound: _Bound, found: Estimate) -> Verdict:
    if bound.at == "least":
        return "fails" if found.high < bound.bound else "holds" if found.low >= bound.bound else "unclear"
    if found.low > bound.bound:
        return "fails"
    # That next to nothing failed could only be told with certainty from very many requests.
    high = found.value if bound.what == "failures" else found.high
    return "holds" if high <= bound.bound else "unclear"


def _whose(objective: Objective) -> str:
    return f"flow {objective.flow}: " if objective.flow else ""


def _there(measured: Sequence[Measured], flow: str | None) -> bool:
    return flow is None or any(flow in one.intervals for one in measured)


def _no_wrong(run: Run) -> Line:
    count = float(_failed_checks(run))
    return Line(
        f"wrong replies and vectors: {count:,.0f}, at most 0", 0.0, count, count, count, count == 0, False
    )


def _failed_checks(run: Run) -> int:
    return results.wrong(run) + len(run.golden.complaints)


def _judged(run: Run, objective: Objective) -> Iterator[Line]:
    who = _whose(objective)
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
    if segments and not _there(segments, objective.flow):
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
    for what, found, bound, at, unit in _bounded([measured], objective):
        yield _line(f"{who}{what}", found, bound, at, unit)
    if (limit := objective.p99_over_idle_p50) is not None:
        flow = objective.flow
        # Of several flows together there was no p50 before the load.
        only = next(iter(run.idle.values())) if len(run.idle) == 1 else None
        idle = run.idle.get(flow) if flow else only
        p99 = estimates.latency([measured], 0.99, flow)
        yield _line(
            f"{who}p99 / p50 before the load", _times(p99, 1 / idle.p50) if idle else None, limit, "most", "x"
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
    return ratio_of(one, other) if one and other and one.value and other.value else None
