"""Load tests of a deployment: ours, or any with Jina's or OpenAI's API.

triptych loadtest run --rate 50                                 send one load
triptych loadtest find-capacity --slo p99=250ms,failures=0.1%   search for the highest rate that holds
triptych loadtest compare BEFORE AFTER                          show significant differences between runs
triptych loadtest gate RUN --slo FILE                           check objectives; the exit code is the result
triptych loadtest --help                                        list the other commands
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

SLO = 'a TOML file, or such as "p99=250ms,failures=0.1%%"'


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    # Importing them takes half a second, which --help need not.
    from triptych.loadtests import commands

    return commands.main(options)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="triptych loadtest", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="send one load and report")
    _target(run)
    _traffic(run)
    _load(run)
    search = commands.add_parser("find-capacity", help="search for the highest rate that meets an objective")
    _target(search)
    _traffic(search)
    _search(search)
    join = commands.add_parser("join", help="send load for a run that waits with --join")
    join.add_argument("address", type=address, metavar="HOST:PORT", help="where that run waits")
    join.add_argument("--name", help="name of this process in the report (default: the machine's)")
    compare = commands.add_parser("compare", help="compare two runs; exit code 1 if the second is worse")
    compare.add_argument("before", type=Path, metavar="BEFORE", help="a run's folder or its run.json")
    compare.add_argument("after", type=Path, metavar="AFTER", help="the same")
    compare.add_argument(
        "--tolerance", type=float, default=0.05, help="ignore differences up to this share (0.05)"
    )
    gate = commands.add_parser("gate", help="check a run against objectives; exit code 1 if it fails")
    gate.add_argument("run", type=Path, metavar="RUN")
    gate.add_argument("--slo", required=True, help=SLO)
    report = commands.add_parser("report", help="write a run's report again")
    report.add_argument("run", type=Path, metavar="RUN")
    report.add_argument("--slo", help=SLO)
    golden = commands.add_parser("golden", help="record golden vectors of a deployment known to be right")
    _target(golden)
    golden.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    commands.add_parser("scenarios", help="list the scenarios")
    return parser


def _target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument_group("target")
    target.add_argument(
        "--url",
        action="append",
        help="address, or POOL=ADDRESS for each of retrieval, text-matching, code\n"
        "(default: the deployment on this machine, or a demo started for the run)",
    )
    target.add_argument(
        "--dialect",
        choices=("jina", "openai", "vllm"),
        default="jina",
        help="API: Triptych's and Jina's, OpenAI's, or vLLM's own (default: jina)",
    )
    target.add_argument("--model", default="jina-embeddings-v4", help="model name (default: %(default)s)")
    target.add_argument(
        "--key", default=os.environ.get("LOADTEST_KEY"), help="API key (default: $LOADTEST_KEY)"
    )
    target.add_argument(
        "--worker-token",
        default=os.environ.get("WORKER_TOKEN"),
        help="read the workers' metrics too (default: $WORKER_TOKEN)",
    )
    target.add_argument("--insecure", action="store_true", help="accept any certificate")
    target.add_argument(
        "--timeout", type=number(0.001), default=60, help="fail requests after this silence (60 s)"
    )


def _traffic(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("requests")
    what.add_argument("--scenario", default="interactive", help="see `scenarios`, or a file (interactive)")
    what.add_argument("--seed", help="the same seed gives the same requests (default: random)")
    what.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson", help="(poisson)")
    what.add_argument("--in-flight", type=int, default=2000, help="most open requests of a process (2000)")
    what.add_argument("--golden", type=Path, metavar="FILE.npz", help="compare with these golden vectors")
    who = parser.add_argument_group("processes")
    who.add_argument(
        "--processes", type=number(1, kind=int), default=1, help="how many processes send the load (1)"
    )
    where = who.add_mutually_exclusive_group()
    where.add_argument(
        "--join", type=address, metavar="ADDRESS:PORT", help="wait here for processes on other machines"
    )
    where.add_argument("--ray", metavar="ADDRESS", help="run them as tasks of this Ray cluster, or auto")
    who.add_argument("--ray-cpus", type=float, default=1, help="CPUs for each task (default: 1)")
    who.add_argument("--bind", default="127.0.0.1", help="with --ray: this machine's address there")
    out = parser.add_argument_group("results")
    out.add_argument("--out", type=Path, help="folder (default: build/loadtests/TIME-SCENARIO-SHAPE)")
    out.add_argument("--metrics", action="append", metavar="URL", help="further metrics pages to read")


def _load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load")
    load.add_argument("--rate", type=rates, default=[20.0], help="requests a second, sent when due (20)")
    load.add_argument(
        "--shape",
        choices=("constant", "step", "spike", "soak"),
        default="constant",
        help="spike takes two loads (--rate 10,200), step any number (default: constant)",
    )
    load.add_argument("--seconds", type=number(0.1), help="length of each step (default: 30; soak: 600)")
    load.add_argument("--slo", help=f"objectives: {SLO}")


def _search(parser: argparse.ArgumentParser) -> None:
    search = parser.add_argument_group("search")
    search.add_argument(
        "--slo",
        default="p99=500ms,failures=0.1%",
        help="the objective, short or as a file (default: p99=500ms,failures=0.1%%)",
    )
    rate = number(0.001)
    search.add_argument("--start", type=rate, default=10, help="first rate, requests/s (default: 10)")
    search.add_argument("--most", type=rate, default=10_000, help="highest rate to try (default: 10,000)")
    # Smaller differences are chance.
    search.add_argument(
        "--precision", type=number(0.001, 1), default=0.05, help="share of the rate (default: 0.05)"
    )
    search.add_argument("--seconds", type=number(1), default=15, help="length of a try (default: 15)")


def number(least: float, most: float = 1e9, kind: type[float] = float) -> Callable[[str], float]:
    """Reads a number within bounds; with `int` a whole one."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            whole = "whole " if kind is int else ""
            raise argparse.ArgumentTypeError(f"{text}: give a {whole}number from {least:g} to {most:g}")
        return value

    return read


def address(text: str) -> tuple[str, int]:
    """Reads a host and its port."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text}: give a host and its port, such as 0.0.0.0:5557")
    return host, int(port)


def rates(text: str) -> list[float]:
    """Reads rates separated by commas."""
    return [number(0)(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
