"""Load tests of a deployment, ours or any that talks like Jina's or OpenAI's API.

python -m loadtests run --rate 50                             one load
python -m loadtests find-capacity --slo p99=250ms,failures=0.1%   the highest rate that holds
python -m loadtests compare RUN RUN                           what differs, and whether it can be told
python -m loadtests gate RUN --slo FILE                       does it hold? The exit code says so
python -m loadtests --help                                    the others
"""

import argparse
import os
import sys
from pathlib import Path

HERE = "http://127.0.0.1:8080"


def main() -> int:
    options = _parser().parse_args()
    if options.command in ("run", "find-capacity", "join"):
        try:
            # It makes sockets and TLS cooperative, which has to come before anything else imports them.
            import locust  # noqa: F401
        except ModuleNotFoundError as error:
            if error.name != "locust":
                raise
            print("loadtests: locust is not installed; `make loadtest-venv` does it", file=sys.stderr)
            return 2
    from loadtests import commands

    return commands.main(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _run(commands.add_parser("run", help="put one load on, and report"))
    _find_capacity(
        commands.add_parser("find-capacity", help="search for the highest rate that holds an objective")
    )
    join = commands.add_parser("join", help="put load on for a run that another process leads")
    join.add_argument("address", metavar="HOST:PORT", help="where that run waits (--join)")
    join.add_argument("--name", help="of this process in the report (default: the machine's)")
    compare = commands.add_parser("compare", help="hold runs against the first of them")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or its run.json")
    compare.add_argument(
        "--tolerance", type=float, default=0.05, help="differences up to this share do not count"
    )
    gate = commands.add_parser("gate", help="hold a run against objectives; exit code 1 when it fails")
    gate.add_argument("run", type=Path, metavar="RUN")
    _gate(gate, required=True)
    report = commands.add_parser("report", help="write a run's report again")
    report.add_argument("run", type=Path, metavar="RUN")
    _gate(report, required=False)
    golden = commands.add_parser("golden", help="record vectors of a deployment that is known to be right")
    _target(golden)
    golden.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    commands.add_parser("scenarios", help="list those that there are")
    return parser


def _run(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    _load(parser)
    load = parser.add_argument_group("load")
    load.add_argument("--rate", help="requests a second, whatever becomes of them (open loop)")
    load.add_argument("--users", help="users that each wait for their reply (closed loop)")
    load.add_argument(
        "--shape",
        choices=("constant", "ramp", "step", "spike", "soak"),
        default="constant",
        help="ramp takes two loads (--rate 10,200), spike too (base, peak), step any number (constant)",
    )
    load.add_argument("--seconds", type=float, help="how long, of each step (default: 30; soak: 600)")
    _gate(parser, required=False)


def _find_capacity(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(baseline=None)
    _target(parser)
    _load(parser)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--slo",
        default="p99=500ms,failures=0.1%",
        help="what has to hold, in short or a file of objectives (default: p99=500ms,failures=0.1%%)",
    )
    search.add_argument("--start", type=float, default=10, help="requests/s to begin with (default: 10)")
    search.add_argument("--most", type=float, default=10_000, help="never try more (default: 10,000)")
    search.add_argument("--precision", type=float, default=0.05, help="of the rate (default: 0.05)")
    search.add_argument("--seconds", type=float, default=15, help="of a try (default: 15)")


def _target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument_group("what is tested")
    target.add_argument(
        "--url",
        action="append",
        help=f"its address, or POOL=ADDRESS for each of retrieval, text-matching, code (default: {HERE},\n"
        "or a demo started for the run where nothing is there)",
    )
    target.add_argument(
        "--dialect",
        choices=("jina", "openai", "vllm"),
        default="jina",
        help="how it is asked: Triptych and Jina's API, OpenAI's, or vLLM's own server (default: jina)",
    )
    target.add_argument("--model", default="jina-embeddings-v4", help="its name there (default: %(default)s)")
    target.add_argument(
        "--key",
        default=os.environ.get("LOADTEST_KEY"),
        help="API key (default: LOADTEST_KEY of the environment)",
    )
    target.add_argument(
        "--worker-token",
        default=os.environ.get("WORKER_TOKEN"),
        help="to read the workers' metrics too (default: WORKER_TOKEN of the environment)",
    )
    target.add_argument("--insecure", action="store_true", help="accept any certificate")
    target.add_argument(
        "--timeout", type=float, default=60, help="seconds of silence that fail a request (60)"
    )


def _load(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is sent")
    what.add_argument("--scenario", default="interactive", help="one of `scenarios`, or a file (interactive)")
    what.add_argument("--seed", help="the same seed gives the same requests (default: a new one)")
    what.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson", help="open loop only")
    what.add_argument("--in-flight", type=int, default=2000, help="open requests of a process at most (2000)")
    what.add_argument(
        "--golden", type=Path, metavar="FILE.npz", help="hold vectors against those recorded there"
    )
    who = parser.add_argument_group("who sends it")
    who.add_argument("--processes", type=int, default=1, help="on this machine, or to wait for (default: 1)")
    who.add_argument(
        "--join", metavar="ADDRESS:PORT", help="wait here for processes started elsewhere with `join`"
    )
    who.add_argument(
        "--ray", metavar="ADDRESS", help="as tasks of this Ray cluster (auto: the one of this machine)"
    )
    who.add_argument("--ray-cpus", type=float, default=1, help="of a node for each task (default: 1)")
    who.add_argument(
        "--bind", default="127.0.0.1", help="with --ray: this machine's address on the cluster's network"
    )
    out = parser.add_argument_group("what comes of it")
    out.add_argument("--out", type=Path, help="folder (default: build/loadtests/TIME-SCENARIO-SHAPE)")
    out.add_argument("--metrics", action="append", metavar="URL", help="further pages to read meanwhile")


def _gate(parser: argparse.ArgumentParser, *, required: bool) -> None:
    gate = parser.add_argument_group("objectives")
    gate.add_argument("--slo", required=required, help='a TOML file, or such as "p99=250ms,failures=0.1%%"')
    gate.add_argument("--baseline", type=Path, metavar="RUN", help="for objectives against another run")


if __name__ == "__main__":
    sys.exit(main())
