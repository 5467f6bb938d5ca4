"""The commands of `triptych loadtest`.

They return exit codes: 0, 1 if something does not hold, 2 if there is no result, 130 after a second Ctrl-C.
Statistics and drawings take long to import, and a process that sends load needs neither.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from triptych.loadtests import results
from triptych.loadtests.assignment import HarnessFailed, Stopped
from triptych.loadtests.calm import Calm, Unusable
from triptych.loadtests.objectives import Objectives, read_objectives
from triptych.loadtests.results import Capacity, Run
from triptych.loadtests.scenario import names, read_scenario
from triptych.loadtests.target import find_target

PASSED, FAILED, NO_RESULT, STOPPED = 0, 1, 2, 130


def run(options: argparse.Namespace) -> int:
    """Also `find-capacity`."""
    from triptych.loadtests.one_run import run
    from triptych.loadtests.setup import name_of

    objectives = read_objectives(options.slo) if options.slo else None
    out = options.out or Path("build/loadtests") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name_of(options)}"
    # Before the load, which would be lost otherwise. Two runs may begin in one second.
    out.mkdir(parents=True, exist_ok=options.out is not None)
    missing = "run.json and report.html are missing"
    with ExitStack() as stack:
        if options.out is None:
            stack.callback(_remove_empty, out)
        try:
            finished = run(options, objectives, stack)
            searched = options.command == "find-capacity"
            try:
                # A file named run.json is complete.
                partial = out / "run.json.new"
                partial.write_bytes(msgspec.json.encode(finished) + b"\n")
                missing = f"report.html is missing: `triptych loadtest report {out}` writes it"
                partial.rename(out / "run.json")
            finally:
                # The disk may be full, or the output closed. The objective of a search does not have to hold
                # at every rate.
                code = _report(finished, out, None if searched else objectives)
            return max(code, _found(finished.capacity)) if searched else code
        except Stopped:
            # What was started ends with this process.
            stack.pop_all()
            raise Stopped(missing) from None


def join(options: argparse.Namespace) -> int:
    from triptych.loadtests.join import join

    host, port = options.address
    join(host, port, options.name)
    return PASSED


def compare_runs(options: argparse.Namespace) -> int:
    from triptych.loadtests import compare

    comparison = compare.compare(results.read(options.before), results.read(options.after), options.tolerance)
    print(compare.render(comparison))
    return FAILED if comparison.worse else PASSED


def gate(options: argparse.Namespace) -> int:
    from triptych.loadtests import slo
    from triptych.loadtests.report.headline import judged

    judgement = slo.judge(results.read(options.run), read_objectives(options.slo))
    print(judged(judgement).title, *judged(judgement).lines, sep="\n  ")
    return PASSED if slo.passed(judgement) else FAILED


def report(options: argparse.Namespace) -> int:
    finished = results.read(options.run)
    out = options.run if options.run.is_dir() else options.run.parent
    return _report(finished, out, read_objectives(options.slo) if options.slo else None)


def golden(options: argparse.Namespace) -> int:
    """Record the vectors of a deployment, and print what looks wrong with them."""
    with ExitStack() as stack:
        target, _ = find_target(options, stack)
        found = stack.enter_context(contextlib.closing(Calm(target))).golden()
    addresses = ", ".join(sorted(target.addresses.values()))
    found.source = f"{addresses}, {time.strftime('%Y-%m-%d')}"
    complaints = found.complaints()
    for complaint in complaints:
        print(complaint)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("wb") as file:
        found.save(file)
    print(f"{options.out}: {sum(map(len, found.vectors.values()))} vectors")
    return FAILED if complaints else PASSED


def scenarios(_: argparse.Namespace) -> int:
    for name in names():
        scenario = read_scenario(name)
        print(f"{name:12} {scenario.about}")
        for flow in scenario.flows:
            print(f"{'':12}   {flow.name}: {flow.task}, weight {flow.weight:g}")
    return PASSED


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run,
    "find-capacity": run,
    "join": join,
    "compare": compare_runs,
    "gate": gate,
    "report": report,
    "golden": golden,
    "scenarios": scenarios,
}


def main(options: argparse.Namespace) -> int:
    """Run a command; return the exit code."""
    try:
        return COMMANDS[options.command](options)
    except (Unusable, OSError, ValueError) as error:
        print(f"loadtests: {error}", file=sys.stderr)
    except HarnessFailed as error:
        print(f"loadtests: the load tester failed: {error}", file=sys.stderr)
    except Stopped as stopped:
        print(f"loadtests: stopped at once; {stopped}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("loadtests: stopped", file=sys.stderr)
    return NO_RESULT


def _found(capacity: Capacity | None) -> int:
    """The exit code of a search; None if it was stopped."""
    if capacity is not None and capacity.rate:
        return PASSED
    return NO_RESULT if capacity is None or capacity.limited_by == "replies" else FAILED


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a run without a result."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _report(finished: Run, out: Path, objectives: Objectives | None) -> int:
    """Print the tables, write the page, and return the exit code."""
    from triptych.loadtests import slo
    from triptych.loadtests.report import html, terminal

    judgement = slo.judge(finished, objectives) if objectives else []
    print(terminal.render(finished, judgement), flush=True)
    page = out / "report.html"
    page.write_text(html.render(finished, judgement))
    print(f"\n{page}")
    return PASSED if slo.passed(judgement) and not results.failed_checks(finished) else FAILED
