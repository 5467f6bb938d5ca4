"""What has to be known of a run before anything else, in the order in which it counts."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from loadtests import estimates
from loadtests.report.moments import counted, points
from loadtests.report.words import duration, estimated, load_of, loads, number, peak, share
from loadtests.results import WRONG, Capacity, Interval, Measured, Run
from loadtests.slo import Judgement, Line

MARK = " †"
"""Behind throughput that does not count, since checks failed."""
# So many segments are each given a sentence.
MOST_SENTENCES = 3
# As an objective says it, and as a line of a judgement does; not of another clock.
_P99 = re.compile(r"(?<!service )(?<!router )\bp99(?:: .*, at most| *(?:<=|=|≤)) *([0-9.]+) *(ms|s)\b")
_UNITS = {"ms": 1e-3, "s": 1.0}
LIMITS = {
    "server": "limited by the server",
    "harness": "limited by the harness, so the server may hold more",
    "range": "no higher rate was tried",
    "replies": "too few replies to tell whether more holds",
}


class Banner(NamedTuple):
    """`tone` says how good the news is; "plain" is neither."""

    tone: Literal["bad", "warning", "good", "plain"]
    title: str
    lines: list[str]


class Figure(NamedTuple):
    """One of the figures at first sight. `rate`: its unit says what it is of. `void`: checks failed, and it
    does not count."""

    name: str
    value: str
    unit: str
    rate: bool = False
    void: bool = False


def banners(run: Run, judgement: Judgement | None) -> list[Banner]:
    """Failed checks come first, then the judgement, then what was found."""
    found = [_checks(run), None if judgement is None else _judged(judgement), _found(run), _harness(run)]
    return [banner for banner in found if banner is not None]


def checks_failed(run: Run) -> bool:
    """Whether a reply was not what was asked for, or the calm deployment's vectors were not right."""
    return bool(_wrong(run)) or bool(run.golden.complaints)


def chosen(run: Run) -> list[Measured]:
    """What the figures at first sight are of: the capacity, or the highest load that there was."""
    if run.capacity is None:
        return [max(run.segments, key=peak)]
    held = [point for point in points(run) if point.verdict == "holds"]
    at = [point for point in held if point.load == run.capacity.rate] or held[-1:] or points(run)[:1]
    return [measured for point in at for measured in point.measured]


def figures(run: Run) -> list[Figure]:
    """Those at first sight."""
    measured = chosen(run)
    void = checks_failed(run)
    failed = estimates.failure_share(measured, None)
    p50, p99 = (estimates.latency(measured, part) for part in (0.5, 0.99))
    return [
        Figure("answered", number(estimates.throughput(measured, None).value), "requests/s", True, void),
        Figure("items", number(estimates.items_per_second(measured, None).value), "items/s", True, void),
        Figure("tokens", number(estimates.tokens_per_second(measured, None).value), "tokens/s", True, void),
        Figure("p50", *_split(estimated(p50, duration))),
        Figure("p99", *_split(estimated(p99, duration))),
        Figure("failed", *_split(share(failed.value))),
    ]


def p99_limit(run: Run, judgement: Judgement | None) -> float | None:
    """What the 99th percentile of latency has to hold, in seconds; None where nothing says."""
    texts = [line.text for line in judgement.lines] if judgement else []
    if run.capacity is not None:
        texts.append(run.capacity.objective)
    found = [match for match in map(_P99.search, texts) if match]
    return min((float(match[1]) * _UNITS[match[2]] for match in found), default=None)


def about_chosen(run: Run) -> str:
    """What `figures` are of."""
    segment = chosen(run)[0].segment
    load = load_of(segment)
    if run.capacity is not None:
        return f"at the rate that holds, {load}" if run.capacity.rate else f"at the lowest rate tried, {load}"
    if len(run.segments) > 1:
        return f"at the highest load, {load}"
    low, high, _ = loads(segment)
    return f"at {load}" if low == high else f"from {load}"


def _split(text: str) -> tuple[str, str]:
    value, _, unit = text.partition(" ")
    return value, unit


def _checks(run: Run) -> Banner | None:
    if not checks_failed(run):
        return None
    wrong = _wrong(run)
    lines = [f"{kind.removeprefix(WRONG)}: {count:,}" for kind, count in wrong.items()]
    lines += [f"before the load: {complaint}" for complaint in run.golden.complaints]
    lines.append("Throughput below is marked (†): work that was not done right does not count.")
    if wrong:
        total = sum(wrong.values())
        asked = f"{total:,} of {total + _good(run):,} replies were not what was asked for"
    else:
        asked = "the deployment's own vectors are not right"
    return Banner("bad", f"CHECKS FAILED: {asked}", lines)


def _wrong(run: Run) -> dict[str, int]:
    """By kind, while the load settled too."""
    found: dict[str, int] = {}
    for interval in _intervals(run):
        for kind, count in interval.failures.items():
            if kind.startswith(WRONG):
                found[kind] = found.get(kind, 0) + count
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _good(run: Run) -> int:
    return sum(sum(interval.clocks.get("total", {}).values()) for interval in _intervals(run))


def _intervals(run: Run) -> Iterator[Interval]:
    return (one for measured in run.segments for row in measured.intervals.values() for one in row)


def _judged(judgement: Judgement) -> Banner:
    lines = [_judged_line(line) for line in judgement.lines]
    if judgement.passed:
        return Banner("good", "PASS: every objective holds", lines)
    failed = sum(not line.holds for line in judgement.lines)
    return Banner("bad", f"FAIL: {failed} of {len(lines)} objectives do not hold", lines)


def _judged_line(line: Line) -> str:
    close = " (close: its 95 % interval has the bound in it)" if line.close else ""
    return f"{'holds' if line.holds else 'FAILS'}: {line.text}{close}"


def _found(run: Run) -> Banner:
    if run.capacity is not None:
        return _capacity(run, run.capacity)
    mark = MARK if checks_failed(run) else ""
    sentences = [_sentence(measured, mark) for measured in run.segments]
    if len(sentences) == 1:
        return Banner("plain", sentences[0], [])
    top = max(range(len(sentences)), key=lambda index: peak(run.segments[index]))
    named = [
        f"{measured.segment.name}: {text[0].lower()}{text[1:]}"
        for measured, text in zip(run.segments, sentences, strict=True)
    ]
    return Banner("plain", sentences[top], named if len(named) <= MOST_SENTENCES else [])


def _sentence(measured: Measured, mark: str) -> str:
    p50, p99 = (estimates.latency([measured], part) for part in (0.5, 0.99))
    low, high, _ = loads(measured.segment)
    sent = sum(interval.sent for interval in counted(measured))
    failed = sum(estimates.failures([measured], None).values())
    items = estimates.items_per_second([measured], None).value
    tokens = estimates.tokens_per_second([measured], None).value
    return (
        f"{'At' if low == high else 'From'} {load_of(measured.segment)}: "
        f"p50 {estimated(p50, duration)}, p99 {estimated(p99, duration)}, "
        f"{failed:,} of {sent:,} failed, {number(items)} items/s{mark}, {number(tokens)} tokens/s{mark}"
    )


def _capacity(run: Run, capacity: Capacity) -> Banner:
    lines = [f"probe at {number(probe.rate)}/s: {probe.why}" for probe in capacity.probes if probe.why]
    if not capacity.rate and capacity.limited_by == "replies":
        last = capacity.probes[-1]
        title = f"No result for {capacity.objective}: at {number(last.rate)} requests/s {last.why}"
        return Banner("warning", title, lines)
    if not capacity.rate:
        least = min((probe.rate for probe in capacity.probes), default=0.0)
        title = f"No rate that was tried holds {capacity.objective}; the least was {number(least)} requests/s"
        return Banner("bad", title, lines)
    bracket = "" if capacity.fails_at is None else f" (less than {number(capacity.fails_at)})"
    title = (
        f"Holds {number(capacity.rate)} requests/s{bracket} with {capacity.objective}; "
        f"confirmed {capacity.confirmed} of {capacity.tries}; {LIMITS[capacity.limited_by]}"
    )
    return Banner("plain" if capacity.limited_by == "server" else "warning", title, [])


def _harness(run: Run) -> Banner | None:
    """Amber where the harness may have been what was measured."""
    by_reason: dict[str, list[str]] = {}
    for measured in run.segments:
        if reason := estimates.bottleneck([measured]):
            by_reason.setdefault(reason, []).append(measured.segment.name)
    if not by_reason:
        return None
    lines = [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in by_reason.items()]
    return Banner("warning", "The harness itself may have been the limit", lines)
