"""Turns the command line into a load and the processes that send it."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych.loadtests.capacity import Search
from triptych.loadtests.crew import Crew, RayCrew, RemoteCrew
from triptych.loadtests.estimates import bottleneck
from triptych.loadtests.objectives import Objectives
from triptych.loadtests.results import Segment
from triptych.loadtests.scenario import Scenario
from triptych.loadtests.shapes import Shape, segments_of
from triptych.loadtests.verdict import holds, requests_needed

SECONDS = {"soak": 600.0}
DEFAULT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """The load over time: `segments`, or a `search`. `describe` says it in words."""

    describe: str
    segments: Sequence[Segment] = ()
    search: Shape | None = None


def shaped(options: argparse.Namespace, scenario: Scenario, objectives: Objectives | None) -> Shaped:
    """The load of `run`, or of `find-capacity`. Raises `ValueError`."""
    if options.command == "find-capacity":
        assert objectives is not None
        return _search(options, scenario, objectives)
    seconds = options.seconds or SECONDS.get(options.shape, DEFAULT_SECONDS)
    return Shaped(
        describe=f"{options.shape}, {', '.join(f'{rate:g}' for rate in options.rate)} requests/s",
        segments=segments_of(options.shape, options.rate, seconds),
    )


def _search(options: argparse.Namespace, scenario: Scenario, objectives: Objectives) -> Shaped:
    if options.start > options.most:
        raise ValueError(f"--start {options.start:g}: at most --most {options.most:g}")
    if not objectives.of_rates:
        raise ValueError(f"--slo {options.slo}: capacity alone cannot judge a rate")
    weights = {flow.name: flow.weight for flow in scenario.flows}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    search = Search(
        judge=lambda measured: holds(measured, objectives),
        bottleneck=bottleneck,
        objective=options.slo,
        start=options.start,
        most=options.most,
        precision=options.precision,
        seconds=options.seconds,
        requests=requests_needed(objectives, shares),
    )
    # A run without any load would have no report.
    if why := search.too_few(options.start):
        raise ValueError(f"--start {options.start:g}: {why} or a higher --start")
    describe = f"search for the highest rate with {options.slo}"
    return Shaped(describe=describe, search=search.shape())


def name_of(options: argparse.Namespace) -> str:
    """The name of the run."""
    load = "capacity" if options.command == "find-capacity" else options.shape
    return f"{Path(options.scenario).stem}-{load}"


def crew_of(options: argparse.Namespace) -> Crew:
    """Where the processes come from."""
    if options.join:
        return RemoteCrew(options.processes, *options.join)
    if options.ray:
        return RayCrew(options.processes, options.ray, options.ray_cpus, options.bind)
    return Crew(options.processes)


def command_line(options: argparse.Namespace) -> str:
    """The command as it was typed, without secrets."""
    program = ["triptych"] if sys.argv[1:2] == ["loadtest"] else ["python", "-m", "loadtests"]
    line = shlex.join([*program, *sys.argv[1:]])
    for secret in (options.key, options.worker_token):
        line = line.replace(secret, "***") if secret else line
    return line
