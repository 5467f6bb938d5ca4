"""Comparison of runs with the first of them: what differs by more than chance."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.confidence import Estimate
from triptych.loadtests.confidence import difference as difference_of
from triptych.loadtests.confidence import ratio as ratio_of
from triptych.loadtests.report import terminal
from triptych.loadtests.results import Measured, Run, failed_checks

Verdict = Literal["better", "worse", "no clear difference"]

# The throughput follows the load, unless the server falls behind by more than this share.
KEPT_UP = 0.02
FAILURES = "failures"
# Error of a search's result, from simulations with tries of 15 s.
CAPACITY_ERROR = 0.1
HEAD = ("segment", "flow", "figure", "verdict", "baseline", "now", "ratio (95 % interval)")
SAME = {"scenario": "scenario", "shape": "shape", "dialect": "dialect", "machine": "machine of the harness"}
LATENCIES = {"p50": 0.5, "p99": 0.99}


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
    """`verdicts`: one word on each run, by its name. `warnings` are reasons to doubt the lines."""

    baseline: str
    verdicts: dict[str, str]
    lines: list[Line]
    warnings: list[str]

    @property
    def worse(self) -> bool:
        """Whether a figure of all flows together is worse, or a run has failed checks."""
        worse = any(line.verdict == "worse" and not line.flow for line in self.lines)
        return worse or NO_VERDICT in self.verdicts.values()


NO_VERDICT = "no verdict, because checks failed"


def compare(runs: Sequence[Run], tolerance: float = 0.05) -> Comparison:
    """Compare all runs with the first, by segments of the same name and load.

    A figure differs if the confidence interval of its ratio lies outside 1 ± `tolerance`. Raises `ValueError`
    for fewer than two runs, and for a run that has no segment in common with the first.
    """
    if len(runs) < 2:
        raise ValueError("compare: give at least two runs")
    baseline, *others = runs
    lines: list[Line] = []
    verdicts = {}
    for run in others:
        found = list(_lines(baseline, run, tolerance))
        if not found:
            both = f"{_name(run)} and {_name(baseline)}"
            raise ValueError(f"compare: {both} have no segment of the same name and load in common")
        lines += found
        said = {line.verdict for line in found} - {"no clear difference"}
        verdicts[_name(run)] = " and ".join(sorted(said)) or "no clear difference"
        if failed_checks(run) or failed_checks(baseline):
            verdicts[_name(run)] = NO_VERDICT
    warnings = list(dict.fromkeys(warning for run in others for warning in _warnings(baseline, run)))
    return Comparison(_name(baseline), verdicts, lines, warnings)


def render(comparison: Comparison) -> str:
    """The comparison as text for the terminal."""
    verdicts = (f"{name}: {verdict}" for name, verdict in comparison.verdicts.items())
    warnings = (f"! {warning}" for warning in comparison.warnings)
    tables = []
    for run in comparison.verdicts:
        rows = [_cells(line) for line in comparison.lines if line.run == run]
        tables.append(terminal.table(run, HEAD, rows, left=4))
    count = len(comparison.lines)
    end = f"{count} figures were compared. About 1 in 20 of those that do not differ seems to, by chance."
    return terminal.text(*verdicts, *warnings, f"baseline: {comparison.baseline}", *tables, end)


def _lines(one: Run, other: Run, tolerance: float) -> Iterator[Line]:
    # The segments of two searches are not comparable: each goes its own way.
    if one.capacity and other.capacity:
        old, new = (
            Estimate(rate, rate * (1 - CAPACITY_ERROR), rate * (1 + CAPACITY_ERROR))
            for rate in (one.capacity.rate, other.capacity.rate)
        )
        yield _line(_name(other), "", "", "capacity", old, new, tolerance)
    if one.capacity or other.capacity:
        return
    before = {_load(measured): measured for measured in one.segments}
    for measured in other.segments:
        if (old_segment := before.get(_load(measured))) is not None:
            flows = [None, *old_segment.intervals] if len(old_segment.intervals) > 1 else [None]
            for flow in flows:
                yield from _flow_lines(other, old_segment, measured, flow, tolerance)


def _flow_lines(
    run: Run, before: Measured, after: Measured, flow: str | None, tolerance: float
) -> Iterator[Line]:
    place = (_name(run), after.segment.name, flow or "")
    for name, share in LATENCIES.items():
        p_old, p_new = (estimates.latency([one], share, flow) for one in (before, after))
        if p_old and p_new:
            yield _line(*place, name, p_old, p_new, tolerance)
    old, new = (estimates.rate([one], "done", flow) for one in (before, after))
    if old.value and new.value and not all(_keeps_up(one, flow) for one in (before, after)):
        yield _line(*place, "throughput", old, new, tolerance)
    old, new = (estimates.failure_share([one], flow) for one in (before, after))
    if old.value or new.value:
        change = difference_of(new, old)
        verdict: Verdict = (
            "worse" if change.low > 0 else "better" if change.high < 0 else "no clear difference"
        )
        yield Line(*place, FAILURES, old, new, change, verdict)


def _line(
    run: str, segment: str, flow: str, figure: str, old: Estimate, new: Estimate, tolerance: float
) -> Line:
    if old.value and new.value:
        ratio = ratio_of(new, old)
    else:
        only = 1.0 if old.value == new.value else math.inf if new.value else 0.0
        ratio = Estimate(only, only, only)
    verdict: Verdict = "no clear difference"
    if ratio.low > 1 + tolerance or ratio.high < 1 - tolerance:
        verdict = "better" if (ratio.value < 1) == (figure in LATENCIES) else "worse"
    return Line(run, segment, flow, figure, old, new, ratio, verdict)


def _load(measured: Measured) -> tuple[object, ...]:
    return measured.segment.name, measured.segment.rate


def _keeps_up(measured: Measured, flow: str | None) -> bool:
    offered = estimates.rate([measured], "sent", flow).value
    return estimates.rate([measured], "done", flow).high >= (1 - KEPT_UP) * offered


def _warnings(one: Run, other: Run) -> Iterator[str]:
    for field, what in SAME.items():
        mine, theirs = getattr(one, field), getattr(other, field)
        if mine != theirs:
            yield f"{_name(other)}: another {what}, {theirs} instead of {mine}"
    for run in (one, other):
        if count := failed_checks(run):
            yield f"{_name(run)}: {count} checks failed, so its figures do not count"
        if run.capacity and run.capacity.limited_by != "server":
            yield f"{_name(run)}: the search was limited by the {run.capacity.limited_by}, not the server"
        if reason := estimates.bottleneck(run.segments):
            yield f"{_name(run)}: the harness may have been the limit ({reason})"


def _name(run: Run) -> str:
    return f"{run.name} {run.began}"


def _cells(line: Line) -> tuple[str, ...]:
    form, factor = "{:,.1f}/s", 1.0
    value, low, high = line.ratio
    ratio = f"{value:.2f}x ({low:.2f} to {high:.2f})"
    if line.figure in LATENCIES:
        form, factor = "{:,.1f} ms", 1e3
    elif line.figure == FAILURES:
        form, factor = "{:.2f} %", 100.0
        ratio = f"{value * 100:+.2f} points ({low * 100:+.2f} to {high * 100:+.2f})"
    amounts = (form.format(estimate.value * factor) for estimate in (line.baseline, line.other))
    return (line.segment or "-", line.flow or "all", line.figure, line.verdict, *amounts, ratio)
