"""The tables of a run, in words, as both the page and the terminal show them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from loadtests import estimates
from loadtests.report.headline import MARK, checks_failed, chosen
from loadtests.report.moments import clock_mean, clock_percentile
from loadtests.report.words import NOTHING, duration, estimated, interval, number, share
from loadtests.results import Clock, Measured, Run


class Table(NamedTuple):
    """`left` columns of words stand before those of figures; `wide` ones of words behind them."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    note: str = ""


class Share(NamedTuple):
    """A part of the time that requests take on average: `seconds` of the whole."""

    name: str
    seconds: float


class Spent(NamedTuple):
    """Where the time goes under one load; `shares` add up to the mean latency."""

    label: str
    shares: list[Share]


def loads(run: Run, *, short: bool = False) -> Table:
    """A row for each segment and flow; `short`: of a search only what its result is of."""
    if short and run.capacity is not None:
        run = msgspec.structs.replace(run, segments=chosen(run))
    rows = estimates.rows(run)
    mark = MARK if checks_failed(run) else ""
    flows = len({row.flow for row in rows}) > 1
    rare = any(row.p999 for row in rows)
    head = ["segment", *(["flow"] if flows else []), "due/s" if run.loop == "open" else "sent/s"]
    head += [f"answered/s{mark}", f"items/s{mark}", f"tokens/s{mark}", "p50", "p90", "p99 (95 % interval)"]
    head += [*(["p99.9"] if rare else []), "failed"]
    cells = [
        [
            row.segment,
            *([row.flow or "all"] if flows else []),
            *(estimated(of, number) for of in (row.offered, row.throughput, row.items, row.tokens)),
            *(estimated(of, duration) for of in (row.p50, row.p90)),
            interval(row.p99, duration),
            *([estimated(row.p999, duration)] if rare else []),
            share(row.failure_share.value),
        ]
        for row in rows
    ]
    return Table("Loads", head, cells, left=2 if flows else 1)


def clocks(run: Run, *, short: bool = False) -> Table:
    """The same latency by the clients' clock, by that from the moment of sending, and by the server's."""
    names: tuple[Clock, ...] = ("total", "service", "router")
    segments = chosen(run) if short and run.capacity is not None else run.segments
    rows = []
    for measured in segments:
        times = [clock_percentile([measured], part, clock) for clock in names for part in (0.5, 0.99)]
        rows.append([measured.segment.name, *(_time(time) for time in times)])
    head = ["segment", *(f"{clock} {part}" for clock in names for part in ("p50", "p99"))]
    begin = "was due" if run.loop == "open" else "was sent"
    note = f"total: since the request {begin}. service: since it was sent. router: what the server says."
    return Table("Clocks", head, rows, note=note)


def _time(seconds: float) -> str:
    return duration(seconds) if seconds == seconds else NOTHING


def failures(run: Run) -> Table | None:
    """By kind, over the whole run, while loads settled too. None: there were none."""
    counts: dict[str, dict[str, int]] = {}
    sent = 0
    for measured in run.segments:
        for flow, intervals in measured.intervals.items():
            for one in intervals:
                sent += one.sent
                for kind, count in one.failures.items():
                    by_flow = counts.setdefault(kind, {})
                    by_flow[flow] = by_flow.get(flow, 0) + count
    if not counts:
        return None
    order = sorted(counts, key=lambda kind: -sum(counts[kind].values()))
    rows = []
    for kind in order:
        total = sum(counts[kind].values())
        flows = ", ".join(f"{flow} {count:,}" for flow, count in counts[kind].items())
        rows.append([kind, flows, f"{total:,}", share(total / max(1, sent))])
    return Table("Failures", ["kind", "flows", "requests", "of all"], rows, left=2)


def probes(run: Run) -> Table | None:
    """What the search has tried, in its order. None: there was no search."""
    if run.capacity is None:
        return None
    rows = []
    for probe in run.capacity.probes:
        measured = [run.segments[index] for index in probe.segments]
        p99 = _time(clock_percentile(measured, 0.99))
        rows.append([probe.verdict, probe.why or NOTHING, f"{number(probe.rate)}/s", p99])
    return Table("Search", ["verdict", "why", "rate", "p99"], rows, left=2)


def harness(run: Run) -> Table:
    """What the harness itself took, in the worst segment of each process."""
    names = dict.fromkeys(process.name for measured in run.segments for process in measured.processes)
    rows: list[Sequence[str]] = []
    for name in names:
        its = [one for measured in run.segments for one in measured.processes if one.name == name]
        cpu, lag, late = (max(getattr(one, of) for one in its) for of in ("cpu", "lag", "late"))
        rows.append([name, share(cpu), duration(lag), duration(late)])
    busy = [measured.machine_cpu for measured in run.segments if measured.machine_cpu is not None]
    note = f"The machine it ran on was busy to {share(max(busy))} at most." if busy else ""
    head = ["process", "of a core", "event loop late (p99)", "sent late (p99)"]
    return Table("The harness", head, rows, note=f"The worst segment of each process. {note}".strip())


def idle(run: Run) -> Table | None:
    """Each flow one request at a time, before the load. None: it was not asked."""
    if not run.idle:
        return None
    rows = [
        [flow, f"{one.requests:,}", number(one.tokens), duration(one.p50), duration(one.p99)]
        for flow, one in run.idle.items()
    ]
    note = "One request at a time, before the load."
    return Table("Idle", ["flow", "requests", "tokens a request", "p50", "p99"], rows, note=note)


def setup(run: Run) -> Table:
    """What it takes to do it again."""
    targets = ", ".join(f"{pool}: {url}" if pool else url for pool, url in run.target.items())
    golden = f"{run.golden.source} ({run.golden.compared:,} compared)"
    rows = [
        ("command", run.command),
        ("scenario", f"{run.scenario}: {run.about}" if run.about else run.scenario),
        ("load", f"{run.shape}, {run.loop} loop"),
        ("target", targets),
        ("dialect", run.dialect),
        ("golden vectors", golden),
        ("seed", run.seed),
        ("began", f"{run.began}, took {run.seconds:,.0f} s"),
        ("machine", run.machine),
        ("revision", run.revision),
    ]
    return Table("Setup", ["", ""], [(name, text) for name, text in rows if text], left=2)


def spent(loads: Iterable[tuple[str, Sequence[Measured]]]) -> list[Spent]:
    """Where the time goes, by load: means, so that parts add up. Without the server's clocks two parts."""
    found = []
    for label, measured in loads:
        means = {clock: clock_mean(measured, clock) for clock in _CLOCKS}
        total, service, router = means["total"], means["service"], means["router"]
        if total is None or service is None:
            continue
        shares = [Share("waiting to be sent", total - service)]
        if router is None:
            shares.append(Share("server and network", service))
        else:
            parts = [(name, means[clock] or 0.0) for clock, name in _PARTS.items()]
            shares += [Share("network and client", service - router), *(Share(*part) for part in parts)]
        found.append(Spent(label, [Share(name, max(0.0, seconds)) for name, seconds in shares]))
    return found


_PARTS: dict[Clock, str] = {"queue": "queue", "inference": "inference", "overhead": "router"}
_CLOCKS: tuple[Clock, ...] = ("total", "service", "router", *_PARTS)
