"""Loads over time, as the command line describes them."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from triptych.loadtests.capacity import Search, Shape
from triptych.loadtests.estimates import bottleneck
from triptych.loadtests.objectives import Objectives
from triptych.loadtests.results import Segment
from triptych.loadtests.scenario import Scenario
from triptych.loadtests.slo import requests_needed, rule

SETTLE_SECONDS, SETTLE_SHARE = 5.0, 0.2
SECONDS = {"soak": 600.0}
DEFAULT_SECONDS = 30.0


def load_of(
    options: argparse.Namespace, scenario: Scenario, objectives: Objectives | None
) -> tuple[str, Shape]:
    """The load of `run` or of `find-capacity`, in words and as a shape. Raises `ValueError`."""
    if options.command == "find-capacity":
        assert objectives is not None
        return f"search for the highest rate with {options.slo}", _search(options, scenario, objectives)
    seconds = options.seconds or SECONDS.get(options.shape, DEFAULT_SECONDS)
    words = f"{options.shape}, {', '.join(f'{rate:g}' for rate in options.rate)} requests/s"
    return words, _once(segments_of(options.shape, options.rate, seconds))


def _once(segments: Sequence[Segment]) -> Shape:
    yield segments
    return None


def segments_of(shape: str, loads: Sequence[float], seconds: float) -> list[Segment]:
    """The segments of a shape, of `seconds` each. Raises `ValueError` for a wrong number of loads."""
    wanted = {"step": len(loads), "spike": 2}.get(shape, 1)
    if len(loads) != wanted:
        example = ",".join(["20", "200"][:wanted])
        raise ValueError(f"--shape {shape} takes {wanted} loads, such as --rate {example}")
    first, last = loads[0], loads[-1]
    settle = min(SETTLE_SECONDS, SETTLE_SHARE * seconds)
    parts = {
        "constant": [("steady", first, settle)],
        "soak": [("soak", first, settle)],
        "step": [(f"{load:g}/s", load, settle) for load in loads],
        # How the load changes is the question, so only the first part settles.
        "spike": [("before", first, settle), ("spike", last, 0.0), ("after", first, 0.0)],
    }[shape]
    return [Segment(name=name, seconds=seconds, settle=settles, rate=rate) for name, rate, settles in parts]


def until(at: float, segments: Sequence[Segment]) -> list[Segment]:
    """The segments that had started `at` seconds after the first, the last one cut off there."""
    started, start = [], 0.0
    for segment in segments:
        if at <= start:
            break
        started.append(msgspec.structs.replace(segment, seconds=min(segment.seconds, at - start)))
        start += segment.seconds
    return started


def _search(options: argparse.Namespace, scenario: Scenario, objectives: Objectives) -> Shape:
    if options.start > options.most:
        raise ValueError(f"--start {options.start:g}: at most --most {options.most:g}")
    if not objectives.of_rates:
        raise ValueError(f"--slo {options.slo}: capacity alone cannot judge a rate")
    weights = {flow.name: flow.weight for flow in scenario.flows}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    search = Search(
        judge=lambda measured: rule(measured, objectives),
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
    return search.shape()


def name_of(options: argparse.Namespace) -> str:
    """The name of the run."""
    load = "capacity" if options.command == "find-capacity" else options.shape
    return f"{Path(options.scenario).stem}-{load}"


def command_line(options: argparse.Namespace) -> str:
    """The command as it was typed, without secrets."""
    program = ["triptych"] if sys.argv[1:2] == ["loadtest"] else ["python", "-m", "loadtests"]
    line = shlex.join([*program, *sys.argv[1:]])
    for secret in (options.key, options.worker_token):
        line = line.replace(secret, "***") if secret else line
    return line
