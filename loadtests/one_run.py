"""Does one run: asks the idle server, sends the load, and collects the results."""

import argparse
import asyncio
import contextlib
import io
import secrets
import signal
import time
from contextlib import ExitStack

from rich.status import Status

from triptych.loadtests.assignment import Plan
from triptych.loadtests.calm import Calm
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.crew import crew_of
from triptych.loadtests.dialects import Target
from triptych.loadtests.golden import Golden
from triptych.loadtests.histogram import merged, percentile
from triptych.loadtests.objectives import Objectives
from triptych.loadtests.provenance import machine, revision
from triptych.loadtests.recording import Total
from triptych.loadtests.results import Capacity, Measured, Run, Segment
from triptych.loadtests.results import Golden as GoldenResult
from triptych.loadtests.scenario import Scenario, read_scenario
from triptych.loadtests.scrape import Scraper
from triptych.loadtests.setup import command_line, load_of, name_of
from triptych.loadtests.target import find_target, metrics_pages
from triptych.loadtests.traffic import Traffic

# Intervals that the status line covers.
RECENT = 5


def run(options: argparse.Namespace, objectives: Objectives | None, stack: ExitStack) -> Run:
    """Do it. What was started for it ends with `stack`, or with this process. The first Ctrl-C ends the load.

    Raises `ValueError`, `Unusable`, `HarnessFailed` and `Stopped`.
    """
    scenario, crew = read_scenario(options.scenario), crew_of(options)
    words, shape = load_of(options, scenario, objectives)
    began, seed = time.strftime("%Y-%m-%d %H:%M:%S %z"), options.seed or secrets.token_hex(4)
    made_with, made_on = revision(), machine()
    target, token = find_target(options, stack)
    scraper = Scraper(metrics_pages(options, target, token))
    plan, golden = _ask_before(options, scenario, seed, target)
    conductor = Conductor(crew, plan, [flow.name for flow in scenario.flows])

    async def send() -> tuple[list[Measured], Capacity | None, float]:
        async with conductor:
            crew.start(conductor.port)
            await conductor.gather()
            signal.signal(signal.SIGINT, conductor.stop)
            with scraper.reading(lambda: conductor.seconds, verify=target.verify), Status("") as status:
                return *await conductor.run(shape, Progress(status).watch), conductor.seconds

    measured, capacity, seconds = asyncio.run(send())
    golden.compared = conductor.compared
    return Run(
        name=name_of(options),
        command=command_line(options),
        scenario=options.scenario,
        about=scenario.about,
        shape=words,
        dialect=target.dialect,
        target=target.addresses,
        seed=seed,
        began=began,
        seconds=seconds,
        machine=made_on,
        revision=made_with,
        golden=golden,
        segments=measured,
        series=scraper.series(),
        capacity=capacity,
        notes=[
            *(f"{kind}, for example: {detail}" for kind, detail in conductor.examples.items()),
            *(["stopped by Ctrl-C before its end"] if conductor.stopped else []),
        ],
    )


def _ask_before(
    options: argparse.Namespace, scenario: Scenario, seed: str, target: Target
) -> tuple[Plan, GoldenResult]:
    """What to find out from the idle server."""
    with contextlib.closing(Calm(target)) as calm:
        calibration = calm.calibrate(scenario)
        golden = calm.golden({flow.task for flow in scenario.flows if flow.kind == "embed"})
        complaints = golden.complaints()
        if options.golden is not None:
            known = Golden.load(options.golden)
            complaints += known.compare(golden)
            golden = known
        calm.rehearse(Traffic(scenario, f"{seed} before", calibration=calibration))
    file = io.BytesIO()
    golden.save(file)
    plan = Plan(
        target=target,
        scenario=scenario.model_dump_json(),
        seed=seed,
        arrivals=options.arrivals,
        in_flight=options.in_flight,
        calibration=calibration,
        golden=file.getvalue(),
    )
    return plan, GoldenResult(source=golden.source, compared=0, complaints=complaints)


class Progress:
    """Shows how a run goes: a line for each segment, and on a terminal a status line."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._shown: Segment | None = None

    def watch(self, total: Total, at: float) -> None:
        """Show the last few seconds before `at`, which is since the load's start."""
        timeline = total.timeline
        place = timeline.place(at)
        if at < 0 or place is None:
            return
        number, last = place
        segment = timeline.segments[number]
        if segment is not self._shown:
            self._shown = segment
            print(f"load begins: {segment.name}, {segment.seconds:g} s", flush=True)
        first = max(0, last - RECENT)
        recent = [one for row in total.segments[number].values() for one in row[first:last]]
        counts = merged(one.clocks.get("total", {}) for one in recent)
        p99 = f"p99 {percentile(counts, 0.99) * 1e3:,.0f} ms" if counts else "no reply yet"
        rate = sum(one.done for one in recent) / max(1, last - first) / timeline.interval
        failed = sum(one.failed for one in recent)
        self._status.update(f"{segment.name}: {rate:,.1f} replies/s, {p99}, {failed:,} failed")
