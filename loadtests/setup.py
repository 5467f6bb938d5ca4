"""From the command line to a run: what is asked, how, by whom, and what it is held against."""

import argparse
import math
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from loadtests import shapes
from loadtests.arrivals import Arrivals
from loadtests.capacity import find_capacity
from loadtests.crew import Crew, LocalCrew, RayCrew, RemoteCrew
from loadtests.estimates import bottleneck
from loadtests.objectives import Objectives, read_objectives
from loadtests.report.words import masked
from loadtests.results import Measured
from loadtests.scenario import Scenario, read_scenario
from loadtests.shapes import Loop, Shape
from loadtests.target import find_target, pages_of
from loadtests.verdict import OF_A_RATE, Verdict, holds, too_few

SECONDS = {"soak": 600.0}
DEFAULT_SECONDS = 30.0
DEFAULT_RATE = "20"
# Of a search: chance differs by more than this, and a try has to have some intervals that count.
LEAST_PRECISION, LEAST_SECONDS = 0.001, 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be run. `target` maps a pool, or "" for all, to its address; `pages` are those with metrics,
    by what they are of, and `page_keys` what each wants as a bearer token.

    `golden` is a file recorded from a deployment known to be right. `loop`, `shape` and `describe` belong
    together: the last says in words what the shape is.
    """

    name: str
    command: str
    scenario_name: str
    scenario: Scenario
    seed: str
    target: dict[str, str]
    dialect: str
    model: str
    key: str | None
    verify: bool
    timeout: float
    in_flight: int
    loop: Loop
    arrivals: Arrivals
    shape: Callable[[], Shape]
    adaptive: bool
    describe: str
    golden: Path | None
    pages: Mapping[str, str] = field(default_factory=dict)
    page_keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """A run, who puts the load on, and what it is held against, if anything."""

    options: Options
    crew: Crew
    objectives: Objectives | None


def setup(options: argparse.Namespace, stack: ExitStack) -> Setup:
    """All that a run needs; a demo that is started for it ends with `stack`.

    Raises `ValueError` and `Unusable`, which say what would be right.
    """
    scenario = read_scenario(options.scenario)
    objectives = read_objectives(options.slo) if options.slo else None
    crew = _crew(options)
    loop, shape, describe, name = _shape(options, objectives)
    target, token = find_target(options, stack)
    pages, keys = pages_of(options, target, token)
    return Setup(
        Options(
            name=f"{Path(options.scenario).stem}-{name}",
            command=_command(options),
            scenario_name=options.scenario,
            scenario=scenario,
            seed=options.seed or secrets.token_hex(4),
            target=target,
            dialect=options.dialect,
            model=options.model,
            key=options.key,
            verify=not options.insecure,
            timeout=options.timeout,
            in_flight=options.in_flight,
            loop=loop,
            arrivals=options.arrivals,
            shape=shape,
            adaptive=options.command == "find-capacity",
            describe=describe,
            golden=options.golden,
            pages=pages,
            page_keys=keys,
        ),
        crew,
        objectives,
    )


def _crew(options: argparse.Namespace) -> Crew:
    if options.processes < 1:
        raise ValueError(f"--processes {options.processes}: at least 1")
    if options.join and options.ray:
        raise ValueError("--join and --ray are two ways of getting processes: give one")
    if options.join:
        host, _, port = options.join.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(
                f"--join {options.join}: an address of this machine and a port, such as 0.0.0.0:5557"
            )
        return RemoteCrew(options.processes, host, int(port))
    if options.ray:
        return RayCrew(options.processes, options.ray, options.ray_cpus, options.bind)
    return LocalCrew(options.processes)


def _shape(
    options: argparse.Namespace, objectives: Objectives | None
) -> tuple[Loop, Callable[[], Shape], str, str]:
    """Which loop, what makes the shape, it in words, and its name for a folder."""
    if options.command == "find-capacity":
        return _search(options, objectives)
    if options.rate and options.users:
        raise ValueError("--rate (open loop) and --users (closed loop) exclude each other")
    loop: Loop = "closed" if options.users else "open"
    given = options.users or options.rate or DEFAULT_RATE
    unit = "users" if options.users else "requests/s"
    loads = _loads(given, "--users" if options.users else "--rate", whole=bool(options.users))
    usual = SECONDS.get(options.shape, DEFAULT_SECONDS)
    seconds = usual if options.seconds is None else options.seconds
    if not 0 < seconds < math.inf:
        raise ValueError(f"--seconds {seconds:g}: more than 0")
    counts = {"constant": 1, "soak": 1, "ramp": 2, "spike": 2}
    wanted = counts.get(options.shape, len(loads))
    if len(loads) != wanted:
        raise ValueError(
            f"--shape {options.shape} takes {wanted} loads, such as --rate {','.join(['20', '200'][:wanted])}"
        )
    make = {
        "constant": lambda: shapes.constant(loop, loads[0], seconds),
        "soak": lambda: shapes.soak(loop, loads[0], seconds),
        "ramp": lambda: shapes.ramp(loop, loads[0], loads[1], seconds),
        "spike": lambda: shapes.spike(loop, loads[0], loads[1], seconds),
        "step": lambda: shapes.step(loop, loads, seconds),
    }[options.shape]
    described = (
        " to ".join(f"{load:g}" for load in loads)
        if wanted == 2
        else ", ".join(f"{load:g}" for load in loads)
    )
    return loop, make, f"{options.shape}, {described} {unit}", options.shape


def _loads(text: str, option: str, *, whole: bool) -> list[float]:
    try:
        loads = [float(part) for part in text.split(",")]
    except ValueError:
        loads = []
    sensible = all(0 <= load < math.inf for load in loads)
    if not loads or not sensible or (whole and any(load % 1 for load in loads)):
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(f"{option} {text}: {kind}, with commas between them")
    return loads


def _search(
    options: argparse.Namespace, objectives: Objectives | None
) -> tuple[Loop, Callable[[], Shape], str, str]:
    assert objectives is not None
    if not 0 < options.start <= options.most:
        raise ValueError(f"--start {options.start:g}: more than 0, and at most --most {options.most:g}")
    if not LEAST_PRECISION <= options.precision <= 1:
        raise ValueError(f"--precision {options.precision:g}: a share of the rate, {LEAST_PRECISION:g} to 1")
    if not LEAST_SECONDS <= options.seconds < math.inf:
        raise ValueError(f"--seconds {options.seconds:g}: at least {LEAST_SECONDS:g}")

    bounds = (getattr(objective, name) for objective in objectives.objective for name in OF_A_RATE)
    if all(bound is None for bound in bounds):
        raise ValueError(f"--slo {options.slo}: nothing that a rate is judged by: {', '.join(OF_A_RATE)}")

    def judge(measured: Sequence[Measured]) -> tuple[Verdict, str]:
        return holds(measured, objectives)

    def make() -> Shape:
        return find_capacity(
            judge,
            lambda measured: too_few(measured, objectives),
            bottleneck,
            objective=options.slo,
            start=options.start,
            most=options.most,
            precision=options.precision,
            seconds=options.seconds,
        )

    return "open", make, f"search for the highest rate with {options.slo}", "capacity"


def _command(options: argparse.Namespace) -> str:
    """As it was typed, without what must not be seen."""
    line = shlex.join(["python", "-m", "loadtests", *sys.argv[1:]])
    for secret in (options.key, options.worker_token):
        line = line.replace(secret, "***") if secret else line
    return masked(line)
