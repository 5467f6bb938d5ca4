"""Comparison of runs with the first of them: what differs by more than chance."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from loadtests import estimates
from loadtests.confidence import Estimate
from loadtests.confidence import difference as difference_of
from loadtests.confidence import ratio as ratio_of
from loadtests.report import screen
from loadtests.results import Measured, Run, failed_checks

Verdict = Literal["better", "worse", "no clear difference"]

# In an open loop the throughput follows the load, unless the server falls behind by more than this share.
KEPT_UP = 0.02
FAILURES = "failures"
# Error of a search's result, from simulations with tries of 15 s.
CAPACITY_ERROR = 0.1
HEAD = ("segment", "flow", "figure", "verdict", "baseline", "now", "ratio (95 % interval)")
SAME = {"scenario": "scenario", "shape": "shape", "dialect": "dialect", "machine": "machine of the harness"}
_LIMITS = {"harness": "harness", "range": "range of the search", "replies": "length of the tries"}
_RATES = {
    "throughput": estimates.throughput,
    "items": estimates.items_per_second,
    "tokens": estimates.tokens_per_second,
}


class Line(NamedTuple):
    """One figure of a segment and flow ("" for all) in both runs, and the ratio of `other` to `baseline`. For
    failures, `ratio` is the difference of the shares."""

    run: str
    segment: str
    flow: str
    figure: str
    baseline: Estimate
    other: Estimate
    ratio: Estimate
    verdict: Verdict


class Comparison(NamedTuple):
    """`warnings` are reasons to doubt the lines."""

    baseline: str
    summary: str
    lines: list[Line]
    warnings: list[str]


def compare(runs: Sequence[Run], tolerance: float = 0.05) -> Comparison:
    """Compare all runs with the first, by segments of the same name and load.

    A figure differs if the confidence interval of its ratio lies outside 1 ± `tolerance`. Raises `ValueError`
    for fewer than two runs, and for a run that has no segment in common with the first.
    """
    if len(runs) < 2:
        raise ValueError("compare: give at least two runs")
    baseline, *others = runs
    lines: list[Line] = []
    summary = []
    for run in others:
        found = list(_lines(baseline, run, tolerance))
        if not found:
            both = f"{_name(run)} and {_name(baseline)}"
            raise ValueError(f"compare: {both} have no segment of the same name and load in common")
        lines += found
        checked = not failed_checks(run) and not failed_checks(baseline)
        summary.append(f"{_name(run)}: {_summary(found) if checked else 'no verdict, because checks failed'}")
    warnings = list(dict.fromkeys(warning for run in others for warning in _warnings(baseline, run)))
    text = "\n".join(summary) + (" (see the warnings)" if warnings else "")
    return Comparison(_name(baseline), text, lines, warnings)


def render(comparison: Comparison) -> str:
    """The comparison as text for the terminal."""
    warnings = [f"! {warning}" for warning in comparison.warnings]
    parts = [comparison.summary, *warnings, f"baseline: {comparison.baseline}"]
    tables = []
    for run in dict.fromkeys(line.run for line in comparison.lines):
        rows = [_cells(line) for line in comparison.lines if line.run == run]
        tables.append(screen.table(run, HEAD, rows, left=4))
    count = len(comparison.lines)
    end = f"{count} figures were compared. About 1 in 20 of those that do not differ seems to, by chance."
    return screen.text(*parts, *tables, end)


def _lines(one: Run, other: Run, tolerance: float) -> Iterator[Line]:
    # The segments of two searches are not comparable: each goes its own way.
    if one.capacity and other.capacity:
        pair = [
            Estimate(rate, rate * (1 - CAPACITY_ERROR), rate * (1 + CAPACITY_ERROR))
            for rate in (one.capacity.rate, other.capacity.rate)
        ]
        yield _line(other, "", "", "capacity", pair[0], pair[1], tolerance)
    if one.capacity or other.capacity:
        return
    before = {_load(measured): measured for measured in one.segments}
    for measured in other.segments:
        if (old := before.get(_load(measured))) is not None:
            flows = [None, *old.intervals] if len(old.intervals) > 1 else [None]
            for flow in flows:
                yield from _flow_lines(other, old, measured, flow, tolerance)


def _flow_lines(
    run: Run, before: Measured, after: Measured, flow: str | None, tolerance: float
) -> Iterator[Line]:
    name = after.segment.name
    for share, figure in ((0.5, "p50"), (0.99, "p99")):
        old, new = (estimates.latency([one], share, flow) for one in (before, after))
        if old is not None and new is not None:
            yield _line(run, name, flow or "", figure, old, new, tolerance)
    if run.loop == "closed" or not all(_keeps_up(one, flow) for one in (before, after)):
        for figure, rate in _RATES.items():
            old, new = (rate([one], flow) for one in (before, after))
            if old.value and new.value:
                yield _line(run, name, flow or "", figure, old, new, tolerance)
    old, new = (estimates.failure_share([one], flow) for one in (before, after))
    if old.value or new.value:
        change = difference_of(new, old)
        verdict: Verdict = (
            "worse" if change.low > 0 else "better" if change.high < 0 else "no clear difference"
        )
        yield Line(_name(run), name, flow or "", FAILURES, old, new, change, verdict)


def _line(
    run: Run, segment: str, flow: str, figure: str, old: Estimate, new: Estimate, tolerance: float
) -> Line:
    if old.value and new.value:
        ratio = ratio_of(new, old)
    else:
        only = 1.0 if old.value == new.value else math.inf if new.value else 0.0
        ratio = Estimate(only, only, only)
    verdict: Verdict = "no clear difference"
    if ratio.low > 1 + tolerance or ratio.high < 1 - tolerance:
        smaller_is_better = figure in ("p50", "p99")
        verdict = "better" if (ratio.value < 1) == smaller_is_better else "worse"
    return Line(_name(run), segment, flow, figure, old, new, ratio, verdict)


def _load(measured: Measured) -> tuple[object, ...]:
    return measured.segment.name, measured.segment.rate, measured.segment.users


def _keeps_up(measured: Measured, flow: str | None) -> bool:
    offered = estimates.offered([measured], flow).value
    return estimates.throughput([measured], flow).high >= (1 - KEPT_UP) * offered


def _warnings(one: Run, other: Run) -> Iterator[str]:
    for field, what in SAME.items():
        mine, theirs = getattr(one, field), getattr(other, field)
        if mine != theirs:
            yield f"{_name(other)}: another {what}, {theirs} instead of {mine}"
    for run in (one, other):
        if count := failed_checks(run):
            yield f"{_name(run)}: {count} checks failed, so its figures do not count"
        if run.capacity and run.capacity.limited_by != "server":
            limit = _LIMITS[run.capacity.limited_by]
            yield f"{_name(run)}: the {limit} was the limit, so the capacity is at least this"
        if reason := estimates.bottleneck(run.segments):
            yield f"{_name(run)}: the harness may have been the limit ({reason})"


def _name(run: Run) -> str:
    return f"{run.name} {run.began}"


def _summary(lines: Sequence[Line]) -> str:
    """A verdict on a run, with its largest differences; over all flows where there are several."""
    told = [line for line in lines if not line.flow and line.verdict != "no clear difference"]
    verdicts = {line.verdict for line in told}
    if not told:
        return "no clear difference"
    head = "better in some figures, worse in others"
    if len(verdicts) == 1:
        head = f"{verdicts.pop()} than the baseline"
    most = sorted(told, key=_size, reverse=True)[:3]
    where = (f"{line.figure} of {line.segment}" if line.segment else line.figure for line in most)
    return "; ".join([head, *(f"{name} {_ratio(line)}" for name, line in zip(where, most, strict=True))])


def _size(line: Line) -> float:
    if line.figure == FAILURES:
        return abs(line.ratio.value) * 100
    return abs(math.log(line.ratio.value)) if line.ratio.value else math.inf


def _ratio(line: Line) -> str:
    value, low, high = line.ratio
    if line.figure == FAILURES:
        return f"{value * 100:+.2f} points ({low * 100:+.2f} to {high * 100:+.2f})"
    return f"{value:.2f}x ({low:.2f} to {high:.2f})"


def _cells(line: Line) -> tuple[str, ...]:
    form, factor = "{:,.1f}/s", 1.0
    if line.figure in ("p50", "p99"):
        form, factor = "{:,.1f} ms", 1e3
    elif line.figure == FAILURES:
        form, factor = "{:.2f} %", 100.0
    amounts = (form.format(estimate.value * factor) for estimate in (line.baseline, line.other))
    return (line.segment or "-", line.flow or "all", line.figure, line.verdict, *amounts, _ratio(line))
