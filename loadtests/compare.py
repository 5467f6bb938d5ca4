"""Runs held against the first of them: what differs, and whether it can be told from chance (pure)."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from loadtests import estimates, results
from loadtests.confidence import Estimate
from loadtests.confidence import difference as difference_of
from loadtests.confidence import ratio as ratio_of
from loadtests.results import Measured, Run

Verdict = Literal["better", "worse", "no difference that can be told"]
Better = Literal["higher", "lower"]

# In an open loop what is answered follows from what is offered, unless the server cannot keep up.
KEPT_UP = 0.02
# Failures are compared as a difference of shares.
FAILURES = "failures"
HEAD = ("segment", "flow", "figure", "baseline", "now", "ratio (95 % interval)", "")
# By how much the rate that a search finds differs from the truth, in simulations with tries of 15 s.
CAPACITY_NOISE = 0.1
_LIMITS = {"harness": "harness", "range": "range of the search", "replies": "length of its tries"}
_RATES = {
    "throughput": estimates.throughput,
    "items": estimates.items_per_second,
    "tokens": estimates.tokens_per_second,
}


class Line(NamedTuple):
    """One figure of one segment and flow ("" for all) in two runs, and the second as a ratio to the first.

    `ratio` holds the failures' difference instead, in shares of what was sent. None: it could not be
    compared.
    """

    run: str
    segment: str
    flow: str
    figure: str
    baseline: Estimate
    other: Estimate
    ratio: Estimate
    verdict: Verdict


class Comparison(NamedTuple):
    """`warnings` are reasons not to believe the lines."""

    baseline: str
    summary: str
    lines: list[Line]
    warnings: list[str]


def compare(runs: Sequence[Run], tolerance: float = 0.05) -> Comparison:
    """Hold all runs against the first, segment by segment of the same name and load.

    A figure differs when the confidence interval of the ratio lies outside 1 -+ `tolerance`. Raises
    `ValueError` for fewer than two runs, or where one has no segment in common with the first.
    """
    if len(runs) < 2:
        raise ValueError("compare: two runs at least")
    baseline, *others = runs
    named = {_name(run): run for run in others}
    lines: list[Line] = []
    for name, run in named.items():
        found = list(_lines(name, baseline, run, tolerance))
        if not found:
            raise ValueError(
                f"compare: {name} and {_name(baseline)} have no segment of the same name and load in common"
            )
        lines += found
    warnings = [warning for name, run in named.items() for warning in _warnings(name, baseline, run)]
    void = {name for name, run in named.items() if _failed_checks(run) or _failed_checks(baseline)}
    # The baseline's own come once for each run.
    warnings = list(dict.fromkeys(warnings))
    return Comparison(_name(baseline), _summary(lines, warnings, void), lines, warnings)


def render(comparison: Comparison) -> str:
    """For the terminal."""
    lines = [comparison.summary, ""]
    lines += [f"! {warning}" for warning in comparison.warnings]
    lines += [""] if comparison.warnings else []
    lines.append(f"baseline: {comparison.baseline}")
    for run in dict.fromkeys(line.run for line in comparison.lines):
        rows = [_cells(line) for line in comparison.lines if line.run == run]
        lines += ["", run, *_aligned([HEAD, *rows])]
    count = len(comparison.lines)
    lines += [
        "",
        f"{count} figures were compared: of those that do not differ, about 1 in 20 seems to by chance.",
    ]
    return "\n".join(lines)


def _lines(name: str, one: Run, other: Run, tolerance: float) -> Iterator[Line]:
    if one.capacity and other.capacity:
        yield from _capacity(name, one, other, tolerance)
    pairs = _matched(one, other)
    for before, after in pairs:
        flows = list(before.intervals)
        for flow in ["", *flows] if len(flows) > 1 else [""]:
            yield from _flow_lines(name, one, before, after, flow, tolerance)


def _flow_lines(
    name: str, run: Run, before: Measured, after: Measured, flow: str, tolerance: float
) -> Iterator[Line]:
    its = flow or None

    def line(figure: str, pair: tuple[Estimate | None, Estimate | None], better: Better) -> Iterator[Line]:
        old, new = pair
        if old is not None and new is not None and old.value and new.value:
            ratio = ratio_of(new, old)
            verdict = _verdict(ratio, better, tolerance)
            yield Line(name, after.segment.name, flow, figure, old, new, ratio, verdict)

    for share, figure in ((0.5, "p50"), (0.99, "p99")):
        pair = (estimates.latency([before], share, its), estimates.latency([after], share, its))
        yield from line(figure, pair, "lower")
    if run.loop == "closed" or not all(_keeps_up(it, its) for it in (before, after)):
        for figure, count in _RATES.items():
            yield from line(figure, (count([before], its), count([after], its)), "higher")
    old, new = estimates.failure_share([before], its), estimates.failure_share([after], its)
    if old.value or new.value:
        difference = difference_of(new, old)
        verdict: Verdict = "no difference that can be told"
        if difference.low > 0:
            verdict = "worse"
        elif difference.high < 0:
            verdict = "better"
        yield Line(name, after.segment.name, flow, FAILURES, old, new, difference, verdict)


def _capacity(name: str, one: Run, other: Run, tolerance: float) -> Iterator[Line]:
    assert one.capacity is not None
    assert other.capacity is not None
    found = [
        Estimate(rate, rate * (1 - CAPACITY_NOISE), rate * (1 + CAPACITY_NOISE))
        for rate in (one.capacity.rate, other.capacity.rate)
    ]
    old, new = found
    if old.value and new.value:
        ratio = ratio_of(new, old)
    else:
        # No rate held in one of them, or in neither.
        only = 1.0 if old.value == new.value else math.inf if new.value else 0.0
        ratio = Estimate(only, only, only)
    yield Line(name, "", "", "capacity", old, new, ratio, _verdict(ratio, "higher", tolerance))


def _matched(one: Run, other: Run) -> list[tuple[Measured, Measured]]:
    """Segments under the same load; those of a search are not, as each search goes its own way."""
    if one.capacity or other.capacity:
        return []
    found = {(its.segment.name, its.segment.rate, its.segment.users): its for its in one.segments}
    keys = ((its.segment.name, its.segment.rate, its.segment.users) for its in other.segments)
    return [(found[key], its) for key, its in zip(keys, other.segments, strict=True) if key in found]


def _keeps_up(measured: Measured, flow: str | None) -> bool:
    offered = estimates.offered([measured], flow)
    return estimates.throughput([measured], flow).high >= (1 - KEPT_UP) * offered.value


def _verdict(ratio: Estimate, better: Better, tolerance: float) -> Verdict:
    if ratio.low > 1 + tolerance:
        return "better" if better == "higher" else "worse"
    if ratio.high < 1 - tolerance:
        return "worse" if better == "higher" else "better"
    return "no difference that can be told"


def _warnings(name: str, one: Run, other: Run) -> Iterator[str]:
    same = {
        "scenario": "scenario",
        "shape": "shape",
        "dialect": "dialect",
        "machine": "machine of the harness",
    }
    for field, what in same.items():
        mine, theirs = getattr(one, field), getattr(other, field)
        if mine != theirs:
            yield f"{name}: another {what}, {theirs} instead of {mine}"
    for run in (one, other):
        if count := _failed_checks(run):
            yield f"{_name(run)}: {count} checks failed, so its figures do not count"
        if run.capacity and run.capacity.limited_by != "server":
            limit = _LIMITS[run.capacity.limited_by]
            yield f"{_name(run)}: the {limit} was the limit, so its capacity is at least this"
        if reason := estimates.bottleneck(run.segments):
            yield f"{_name(run)}: the harness may have been the limit ({reason})"


def _name(run: Run) -> str:
    return f"{run.name} {run.began}"


def _failed_checks(run: Run) -> int:
    return results.wrong(run) + len(run.golden.complaints)


def _summary(lines: Sequence[Line], warnings: Sequence[str], void: Collection[str]) -> str:
    """One sentence for each run; of the flows together where a segment has several. Those of `void` failed
    their checks, or the baseline did."""
    words = []
    for run in dict.fromkeys(line.run for line in lines):
        if run in void:
            words.append(f"{run}: no verdict, as checks failed")
            continue
        its = [line for line in lines if line.run == run and not line.flow]
        told = [line for line in its if line.verdict in ("better", "worse")]
        verdicts = {line.verdict for line in told}
        head = "no difference that can be told"
        if len(verdicts) == 1:
            head = f"{verdicts.pop()} than the baseline"
        elif verdicts:
            head = "better in some figures, worse in others"
        most = sorted(told, key=lambda line: -abs(_distance(line)))[:3]
        words.append(f"{run}: {head}" + "".join(f"; {_short(line)}" for line in most))
    return "\n".join(words) + (" (see the warnings)" if warnings else "")


def _distance(line: Line) -> float:
    if line.figure == FAILURES:
        return line.ratio.value * 100
    return math.log(line.ratio.value) if line.ratio.value else -math.inf


def _short(line: Line) -> str:
    where = f" of {line.segment}" if line.segment else ""
    return f"{line.figure}{where} {_as_ratio(line)}"


def _as_ratio(line: Line) -> str:
    ratio = line.ratio
    if line.figure == FAILURES:
        return f"{ratio.value * 100:+.2f} points ({ratio.low * 100:+.2f} to {ratio.high * 100:+.2f})"
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _cells(line: Line) -> tuple[str, ...]:
    shown = {"p50": "{:,.1f} ms", "p99": "{:,.1f} ms", "capacity": "{:,.1f}/s"}
    shown |= dict.fromkeys(_RATES, "{:,.1f}/s")
    form, factor = shown.get(line.figure, "{:.2f} %"), 1.0
    if line.figure in ("p50", "p99"):
        factor = 1e3
    elif line.figure == FAILURES:
        factor = 100.0
    amounts = (form.format(estimate.value * factor) for estimate in (line.baseline, line.other))
    return (line.segment or "-", line.flow or "all", line.figure, *amounts, _as_ratio(line), line.verdict)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
