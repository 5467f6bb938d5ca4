"""Comparison of two runs: what differs by more than chance."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.confidence import Estimate, difference, ratio
from triptych.loadtests.report import terminal, words
from triptych.loadtests.results import Measured, Run, failed_checks

Verdict = Literal["better", "worse", "no clear difference"]

# The throughput follows the load, unless the server falls behind by more than this share.
KEPT_UP = 0.02
# Error of a search's result, from simulations with tries of 15 s.
CAPACITY_ERROR = 0.1
LATENCIES = {"p50": 0.5, "p99": 0.99}
FAILURES = "failures"
MORE_IS_BETTER = ("throughput/s", "capacity/s")
HEAD = ("segment", "flow", "figure", "verdict", "baseline", "now", "ratio (95 % interval)")
SAME = {"scenario": "scenario", "shape": "shape", "dialect": "dialect", "machine": "machine of the harness"}
NO_VERDICT = "no verdict, because checks failed"


class Line(NamedTuple):
    """One figure of a segment and flow ("" for all) in both runs. `change`: the ratio of `now` to `before`,
    of failures the difference of the shares."""

    segment: str
    flow: str
    figure: str
    before: Estimate
    now: Estimate
    change: Estimate
    verdict: Verdict


class Comparison(NamedTuple):
    """The names of both runs, the verdict, and the lines. `warnings` are reasons to doubt them."""

    baseline: str
    run: str
    verdict: str
    lines: list[Line]
    warnings: list[str]

    @property
    def worse(self) -> bool:
        """Whether a figure of all flows together is worse, or a run has failed checks."""
        worse = any(line.verdict == "worse" and not line.flow for line in self.lines)
        return worse or self.verdict == NO_VERDICT


def compare(baseline: Run, run: Run, tolerance: float = 0.05) -> Comparison:
    """Compare segments of the same name and load.

    A figure differs if the confidence interval of its ratio lies outside 1 ± `tolerance`. Raises `ValueError`
    for runs without a segment in common.
    """
    lines = [
        _line(segment, flow, figure, before, now, tolerance)
        for segment, flow, figure, (before, now) in _figures(baseline, run)
        if before and now
    ]
    if not lines:
        both = f"{_name(baseline)} and {_name(run)}"
        raise ValueError(f"compare: {both} have no segment of the same name and load in common")
    clear = {line.verdict for line in lines} - {"no clear difference"}
    failed = failed_checks(run) or failed_checks(baseline)
    verdict = NO_VERDICT if failed else " and ".join(sorted(clear)) or "no clear difference"
    return Comparison(_name(baseline), _name(run), verdict, lines, list(_warnings(baseline, run)))


def render(comparison: Comparison) -> str:
    """The comparison as text for the terminal."""
    head = f"{comparison.run}: {comparison.verdict}", f"baseline: {comparison.baseline}"
    warnings = (f"! {warning}" for warning in comparison.warnings)
    table = terminal.table("", HEAD, [_cells(line) for line in comparison.lines], left=4)
    count = len(comparison.lines)
    end = f"{count} figures were compared. About 1 in 20 of those that do not differ seems to, by chance."
    return terminal.text(*head, *warnings, table, end)


def _figures(one: Run, other: Run) -> Iterator[tuple[str, str | None, str, list[Estimate | None]]]:
    """Segment, flow (None for all) and name of each figure, and what it was before and now."""
    if one.capacity or other.capacity:
        # The segments of two searches are not comparable: each goes its own way.
        if one.capacity and other.capacity:
            rates = one.capacity.rate, other.capacity.rate
            error = (1, 1 - CAPACITY_ERROR, 1 + CAPACITY_ERROR)
            yield "", None, "capacity/s", [Estimate(*(rate * part for part in error)) for rate in rates]
        return
    loads = {(measured.segment.name, measured.segment.rate): measured for measured in one.segments}
    for now in other.segments:
        name = now.segment.name
        before = loads.get((name, now.segment.rate))
        if before is None:
            continue
        both = [before], [now]
        for flow in [None, *before.intervals] if len(before.intervals) > 1 else [None]:
            for figure, share in LATENCIES.items():
                yield name, flow, figure, [estimates.latency(side, share, flow) for side in both]
            if not all(_keeps_up(side, flow) for side in both):
                yield name, flow, "throughput/s", [estimates.rate(side, "done", flow) for side in both]
            failed = [estimates.failure_share(side, flow) for side in both]
            if any(share and share.value for share in failed):
                yield name, flow, FAILURES, failed


def _keeps_up(measured: list[Measured], flow: str | None) -> bool:
    offered = estimates.rate(measured, "sent", flow).value
    return estimates.rate(measured, "done", flow).high >= (1 - KEPT_UP) * offered


def _line(
    segment: str, flow: str | None, figure: str, before: Estimate, now: Estimate, tolerance: float
) -> Line:
    change, least, most = ratio(now, before), 1 - tolerance, 1 + tolerance
    if figure == FAILURES:
        change, least, most = difference(now, before), 0.0, 0.0
    verdict: Verdict = "no clear difference"
    if change.low > most or change.high < least:
        verdict = "better" if (change.low > most) == (figure in MORE_IS_BETTER) else "worse"
    return Line(segment, flow or "", figure, before, now, change, verdict)


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
    write = words.duration if line.figure in LATENCIES else words.number
    change = "{:.2f}x ({:.2f} to {:.2f})".format(*line.change)
    if line.figure == FAILURES:
        write, change = words.share, "{:+.2%} ({:+.2%} to {:+.2%})".format(*line.change)
    amounts = (write(one.value) for one in (line.before, line.now))
    return (line.segment or "-", line.flow or "all", line.figure, line.verdict, *amounts, change)
