"""The news of a run, most important first: failed checks, judgement, result, doubts about the harness."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.objectives import read_objectives
from triptych.loadtests.report.words import duration, estimated, number, share
from triptych.loadtests.results import (
    WRONG,
    Measured,
    Run,
    all_intervals,
    failed_checks,
    failure_counts,
    held,
    wrong,
)
from triptych.loadtests.slo import Bound, passed

LIMITS = {
    "server": "limited by the server",
    "harness": "limited by the harness, so the server may hold more",
    "range": "no higher rate was tried",
    "replies": "too few replies to tell whether more holds",
}


class Banner(NamedTuple):
    """One piece of news."""

    tone: Literal["bad", "warning", "good", "plain"]
    title: str
    lines: Sequence[str] = ()


def banners(run: Run, judgement: Sequence[Bound]) -> list[Banner]:
    """The news, the most important first."""
    found = [_checks(run), judged(judgement) if judgement else None, _result(run), _harness(run)]
    return [banner for banner in found if banner is not None]


def chosen(run: Run) -> list[Measured]:
    """The segments of the key figures: where the result of a search held, or at the highest load."""
    if run.capacity is None:
        return [max(run.segments, key=lambda one: one.segment.rate)]
    lowest = min((probe for probe in run.capacity.probes if probe.segments), key=lambda probe: probe.rate)
    return held(run) or [run.segments[number] for number in lowest.segments]


def sentence(run: Run) -> str:
    """The key figures, and their load."""
    measured = chosen(run)
    what = ""
    if run.capacity is not None:
        what = "the rate that holds, " if run.capacity.rate else "the lowest rate tried, "
    p50, p99 = (estimated(estimates.latency(measured, part), duration) for part in (0.5, 0.99))
    failed = estimated(estimates.failure_share(measured), share)
    counted: tuple[estimates.Counted, ...] = "done", "items", "tokens"
    answered, items, tokens = (f"{number(estimates.rate(measured, kind).value)} /s" for kind in counted)
    return (
        f"At {what}{number(measured[0].segment.rate)} requests/s: p50 {p50}, p99 {p99}, failed {failed}, "
        f"answered {answered}, items {items}, tokens {tokens}"
    )


def p99_limit(run: Run, judgement: Sequence[Bound]) -> float | None:
    """The tightest bound of the p99 in seconds, from the judgement or the search; None without one."""
    found = [bound.bound for bound in judgement if bound.figure == "p99"]
    if run.capacity is not None and "=" in run.capacity.objective:
        objectives = read_objectives(run.capacity.objective).objective
        found += [objective.p99_ms for objective in objectives if objective.p99_ms is not None]
    return min(found) / 1e3 if found else None


def judged(judgement: Sequence[Bound]) -> Banner:
    """Whether the objectives are met."""
    lines = [f"{'holds' if bound.holds else 'FAILS'}: {bound.text}" for bound in judgement]
    if passed(judgement):
        return Banner("good", "PASS: every objective is met", lines)
    failed = sum(not bound.holds for bound in judgement)
    return Banner("bad", f"FAIL: {failed} of {len(lines)} objectives are not met", lines)


def _checks(run: Run) -> Banner | None:
    if not failed_checks(run):
        return None
    kinds = failure_counts(run.segments).items()
    lines = [f"{kind.removeprefix(WRONG)}: {one.total():,}" for kind, one in kinds if kind.startswith(WRONG)]
    lines += [f"before the load: {complaint}" for complaint in run.golden.complaints]
    what = "the vectors of the deployment are wrong"
    if count := wrong(run.segments):
        good = sum(sum(one.clocks.get("total", {}).values()) for _, one in all_intervals(run.segments))
        what = f"{count:,} of {count + good:,} replies were wrong"
    return Banner("bad", f"CHECKS FAILED: {what}", lines)


def _result(run: Run) -> Banner:
    capacity = run.capacity
    if capacity is None:
        return Banner("plain", sentence(run))
    if not capacity.rate and capacity.limited_by == "replies":
        last = capacity.probes[-1]
        title = f"No result for {capacity.objective}: at {number(last.rate)} requests/s {last.why}"
        return Banner("warning", title)
    if not capacity.rate:
        least = min((probe.rate for probe in capacity.probes), default=0.0)
        title = f"No rate meets {capacity.objective}; the lowest tried was {number(least)} requests/s"
        return Banner("bad", title)
    bracket = "" if capacity.fails_at is None else f" (less than {number(capacity.fails_at)})"
    title = (
        f"Holds {number(capacity.rate)} requests/s{bracket} with {capacity.objective}; "
        f"confirmed {capacity.confirmed} of {capacity.tries}; {LIMITS[capacity.limited_by]}"
    )
    return Banner("plain" if capacity.limited_by == "server" else "warning", title, [sentence(run)])


def _harness(run: Run) -> Banner | None:
    names: dict[str, list[str]] = {}
    for measured in run.segments:
        if reason := estimates.bottleneck([measured]):
            names.setdefault(reason, []).append(measured.segment.name)
    lines = [f"{', '.join(dict.fromkeys(segments))}: {reason}" for reason, segments in names.items()]
    return Banner("warning", "The harness itself may have been the limit", lines) if lines else None
