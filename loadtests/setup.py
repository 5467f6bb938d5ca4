"""Turns the command line into a run: target, load, processes and objectives."""

import argparse
import secrets
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from triptych.loadtests.assignment import Target
from triptych.loadtests.capacity import Search
from triptych.loadtests.crew import Crew, RayCrew, RemoteCrew
from triptych.loadtests.estimates import bottleneck
from triptych.loadtests.objectives import Objectives, read_objectives
from triptych.loadtests.results import Segment
from triptych.loadtests.scenario import Scenario, read_scenario
from triptych.loadtests.scrape import Pages
from triptych.loadtests.shapes import Shape, segments_of
from triptych.loadtests.target import find_target, metrics_pages
from triptych.loadtests.verdict import OF_A_RATE, holds, requests_needed

SECONDS = {"soak": 600.0}
DEFAULT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """The load over time: `segments`, or a `search`. `describe` says it in words."""

    name: str
    describe: str
    segments: Sequence[Segment] = ()
    search: Shape | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run to do. `options` is the command line, and `name` is for the folder."""

    name: str
    command: str
    scenario: Scenario
    seed: str
    target: Target
    shaped: Shaped
    crew: Crew
    objectives: Objectives | None
    pages: Pages
    options: argparse.Namespace


def setup(options: argparse.Namespace, stack: ExitStack) -> Setup:
    """What a run needs; a demo started for it ends with `stack`. Raises `ValueError` and `Unusable`."""
    scenario = read_scenario(options.scenario)
    objectives = read_objectives(options.slo) if options.slo else None
    crew = _crew(options)
    shaped = _search(options, scenario, objectives) if options.command == "find-capacity" else _shape(options)
    target, token = find_target(options, stack)
    return Setup(
        name=f"{Path(options.scenario).stem}-{shaped.name}",
        command=_command(options),
        scenario=scenario,
        seed=options.seed or secrets.token_hex(4),
        target=target,
        shaped=shaped,
        crew=crew,
        objectives=objectives,
        pages=metrics_pages(options, target, token),
        options=options,
    )


def _crew(options: argparse.Namespace) -> Crew:
    if options.join:
        host, _, port = options.join.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(
                f"--join {options.join}: give ADDRESS:PORT of this machine, such as 0.0.0.0:5557"
            )
        return RemoteCrew(options.processes, host, int(port))
    if options.ray:
        return RayCrew(options.processes, options.ray, options.ray_cpus, options.bind)
    return Crew(options.processes)


def _shape(options: argparse.Namespace) -> Shaped:
    joint = ", " if options.shape == "step" else " to "
    seconds = options.seconds or SECONDS.get(options.shape, DEFAULT_SECONDS)
    return Shaped(
        name=options.shape,
        describe=f"{options.shape}, {joint.join(f'{rate:g}' for rate in options.rate)} requests/s",
        segments=segments_of(options.shape, options.rate, seconds),
    )


def _search(options: argparse.Namespace, scenario: Scenario, objectives: Objectives | None) -> Shaped:
    assert objectives is not None
    if options.start > options.most:
        raise ValueError(f"--start {options.start:g}: at most --most {options.most:g}")
    if not any(objective.bounds & set(OF_A_RATE) for objective in objectives.objective):
        raise ValueError(f"--slo {options.slo}: a rate is judged by {', '.join(OF_A_RATE)}; give one of them")
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
    describe = f"search for the highest rate with {options.slo}"
    return Shaped(name="capacity", describe=describe, search=search.shape())


def _command(options: argparse.Namespace) -> str:
    """The command as it was typed, without secrets."""
    program = ["triptych"] if sys.argv[1:2] == ["loadtest"] else ["python", "-m", "loadtests"]
    line = shlex.join([*program, *sys.argv[1:]])
    for secret in (options.key, options.worker_token):
        line = line.replace(secret, "***") if secret else line
    return line
