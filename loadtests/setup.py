"""Turns the command line into a run: target, load, processes and objectives."""

import argparse
import math
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from triptych.loadtests.assignment import Target
from triptych.loadtests.capacity import Search
from triptych.loadtests.crew import Crew, RayCrew, RemoteCrew
from triptych.loadtests.estimates import bottleneck
from triptych.loadtests.objectives import Objectives, read_objectives
from triptych.loadtests.report.words import masked
from triptych.loadtests.results import Segment
from triptych.loadtests.scenario import Scenario, read_scenario
from triptych.loadtests.shapes import Loop, Shape, segments_of
from triptych.loadtests.target import find_target, metrics_pages
from triptych.loadtests.verdict import OF_A_RATE, holds

SECONDS = {"soak": 600.0}
DEFAULT_SECONDS = 30.0
DEFAULT_RATE = "20"
# Smaller differences are chance, and a try needs some intervals.
LEAST_PRECISION, LEAST_SECONDS = 0.001, 1.0


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """The load over time: `segments`, or a `search`. `describe` says it in words."""

    name: str
    describe: str
    loop: Loop = "open"
    segments: Sequence[Segment] = ()
    search: Shape | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run to do. `pages` are metrics pages as in `metrics_pages`; `options` is the command line."""

    command: str
    scenario: Scenario
    seed: str
    target: Target
    shaped: Shaped
    crew: Crew
    objectives: Objectives | None
    pages: Mapping[str, tuple[str, str | None]]
    options: argparse.Namespace


def setup(options: argparse.Namespace, stack: ExitStack) -> Setup:
    """What a run needs; a demo started for it ends with `stack`. Raises `ValueError` and `Unusable`."""
    scenario = read_scenario(options.scenario)
    objectives = read_objectives(options.slo) if options.slo else None
    crew = _crew(options)
    shaped = _search(options, objectives) if options.command == "find-capacity" else _shape(options)
    target, token = find_target(options, stack)
    return Setup(
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
    if options.processes < 1:
        raise ValueError(f"--processes {options.processes}: at least 1")
    if options.join and options.ray:
        raise ValueError("--join and --ray are both sources of processes: give one")
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
    if options.rate and options.users:
        raise ValueError("--rate (open loop) and --users (closed loop) exclude each other")
    loop: Loop = "closed" if options.users else "open"
    option, unit = ("--users", "users") if options.users else ("--rate", "requests/s")
    loads = _loads(options.users or options.rate or DEFAULT_RATE, option, whole=loop == "closed")
    seconds = SECONDS.get(options.shape, DEFAULT_SECONDS) if options.seconds is None else options.seconds
    if not 0 < seconds < math.inf:
        raise ValueError(f"--seconds {seconds:g}: more than 0")
    joint = ", " if options.shape == "step" else " to "
    return Shaped(
        name=options.shape,
        describe=f"{options.shape}, {joint.join(f'{load:g}' for load in loads)} {unit}",
        loop=loop,
        segments=segments_of(options.shape, loop, loads, seconds),
    )


def _loads(text: str, option: str, *, whole: bool) -> list[float]:
    try:
        loads = [float(part) for part in text.split(",")]
    except ValueError:
        loads = [math.nan]
    if not all(0 <= load < math.inf for load in loads) or (whole and any(load % 1 for load in loads)):
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(f"{option} {text}: give {kind}, separated by commas")
    return loads


def _search(options: argparse.Namespace, objectives: Objectives | None) -> Shaped:
    assert objectives is not None
    if not 0 < options.start <= options.most:
        raise ValueError(f"--start {options.start:g}: more than 0, and at most --most {options.most:g}")
    if not LEAST_PRECISION <= options.precision <= 1:
        raise ValueError(f"--precision {options.precision:g}: a share of the rate, {LEAST_PRECISION:g} to 1")
    if not LEAST_SECONDS <= options.seconds < math.inf:
        raise ValueError(f"--seconds {options.seconds:g}: at least {LEAST_SECONDS:g}")
    if not any(objective.bounds & set(OF_A_RATE) for objective in objectives.objective):
        raise ValueError(f"--slo {options.slo}: a rate is judged by {', '.join(OF_A_RATE)}; give one of them")
    search = Search(
        judge=lambda measured: holds(measured, objectives),
        bottleneck=bottleneck,
        objective=options.slo,
        start=options.start,
        most=options.most,
        precision=options.precision,
        seconds=options.seconds,
    )
    describe = f"search for the highest rate with {options.slo}"
    return Shaped(name="capacity", describe=describe, search=search.shape())


def _command(options: argparse.Namespace) -> str:
    """The command as it was typed, without secrets."""
    line = shlex.join(["python", "-m", "triptych.loadtests", *sys.argv[1:]])
    for secret in (options.key, options.worker_token):
        line = line.replace(secret, "***") if secret else line
    return masked(line)


def run_name(plan: Setup) -> str:
    """The name of a run, for its folder."""
    return f"{Path(plan.options.scenario).stem}-{plan.shaped.name}"
