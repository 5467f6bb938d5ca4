"""The tables of a run, for the page and the terminal."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.histogram import mean, merged
from triptych.loadtests.report.headline import chosen
from triptych.loadtests.report.words import NOTHING, duration, estimated, interval, number, share
from triptych.loadtests.results import Clock, Measured, Run, all_intervals, failure_counts

ENOUGH_FOR_P999 = 1000
PARTS: dict[Clock, str] = {"overhead": "router", "queue": "queue", "inference": "inference"}

_RATES: tuple[estimates.Counted, ...] = ("sent", "done", "items", "tokens")


class Table(NamedTuple):
    """A table whose first `left` columns are words and the others figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    note: str = ""


def every(run: Run, *, brief: bool = False) -> list[Table]:
    """All tables of the page. The `brief` ones of the terminal have of a search only its result."""
    shown = chosen(run) if brief and run.capacity else run.segments
    found = [loads(shown), probes(run), failures(run)] + ([] if brief else [harness(run)])
    return [table for table in found if table.rows]


def loads(segments: Iterable[Measured]) -> Table:
    """One row for each segment and flow."""
    head = ["segment", "flow", "due/s", "answered/s", "items/s", "tokens/s"]
    head += ["p50", "p90", "p99 (95 % interval)", "p99.9", "failed"]
    rows = []
    for one in segments:
        flows = [None, *one.intervals] if len(one.intervals) > 1 else [*one.intervals]
        for flow in flows:
            rates = (estimates.rate([one], counted, flow) for counted in _RATES)
            p50, p90, p99, p999 = (estimates.latency([one], part, flow) for part in (0.5, 0.9, 0.99, 0.999))
            # Of fewer replies, it is the slowest of them.
            enough = estimates.replies([one], flow) >= ENOUGH_FOR_P999
            times = [estimated(p50, duration), estimated(p90, duration), interval(p99, duration)]
            times += [estimated(p999 if enough else None, duration)]
            failed = estimated(estimates.failure_share([one], flow), share)
            rows.append(
                [one.segment.name, flow or "all", *(number(rate.value) for rate in rates), *times, failed]
            )
    return Table("Loads", head, rows, left=2)


def failures(run: Run) -> Table:
    """Failures of the whole run by kind, settling included."""
    rows = []
    sent = sum(one.sent for _, one in all_intervals(run.segments))
    for kind, by_flow in failure_counts(run.segments).items():
        total = by_flow.total()
        flows = ", ".join(f"{flow} {count:,}" for flow, count in by_flow.items())
        rows.append([kind, flows, f"{total:,}", share(total / max(1, sent))])
    return Table("Failures", ["kind", "flows", "requests", "of all"], rows, left=2)


def probes(run: Run) -> Table:
    """The rates that a search tried, in their order."""
    rows = []
    for probe in run.capacity.probes if run.capacity else ():
        p99 = estimated(estimates.latency([run.segments[index] for index in probe.segments], 0.99), duration)
        rows.append([probe.verdict, probe.why or NOTHING, f"{number(probe.rate)}/s", p99])
    return Table("Search", ["verdict", "why", "rate", "p99"], rows, left=2)


def harness(run: Run) -> Table:
    """The worst segment of each process of the harness."""
    rows = []
    for name in dict.fromkeys(process.name for one in run.segments for process in one.processes):
        found = [process for one in run.segments for process in one.processes if process.name == name]
        cpu, late, busy = (max(getattr(one, of) for one in found) for of in ("cpu", "late", "machine_cpu"))
        rows.append([name, share(cpu), duration(late), share(busy)])
    note = "The worst segment of each."
    return Table("The harness", ["process", "CPU", "sent late (p99)", "its machine's CPU"], rows, note=note)


def setup(run: Run) -> dict[str, str]:
    """All that is needed to repeat the run."""
    found = {
        "command": run.command,
        "scenario": f"{run.scenario}: {run.about}" if run.about else run.scenario,
        "load": run.shape,
        "target": ", ".join(f"{pool}: {url}" if pool else url for pool, url in run.target.items()),
        "dialect": run.dialect,
        "golden vectors": f"{run.golden.source} ({run.golden.compared:,} compared)",
        "seed": run.seed,
        "began": f"{run.began}, took {run.seconds:,.0f} s",
        "machine": run.machine,
        "revision": run.revision,
    }
    return {name: text for name, text in found.items() if text}


def spent(measured: Sequence[Measured]) -> dict[str, float]:
    """The parts of the mean latency in seconds, in the order in which they pass; empty without a reply.

    Without the server's clock, its time and the network are one part.
    """
    clocks: tuple[Clock, ...] = "total", "service", "router", *PARTS
    counts = {clock: merged(estimates.times(measured, None, clock)) for clock in clocks}
    means = {clock: mean(histogram) for clock, histogram in counts.items() if histogram}
    if "service" not in means:
        return {}
    parts = {"waiting to be sent": means["total"] - means["service"]}
    if "router" not in means:
        return parts | {"server and network": means["service"]}
    parts["network and client"] = means["service"] - means["router"]
    parts |= {name: means.get(clock, 0.0) for clock, name in PARTS.items()}
    return {name: max(0.0, seconds) for name, seconds in parts.items()}
