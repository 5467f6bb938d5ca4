"""The same load on Triptych and on what else could serve the same vectors, one after another on this machine.

    python -m loadtests.versus [--rounds 2] [--scenario common] [--capacity p99=250ms,failures=0.1%]

Three servers of stock vLLM, asked directly by a client that knows them all; the same, each behind vllm-router
(Rust); and Triptych. Each is started alone, on the nano variants, float32, one thread an engine, and is put
under rising rates and under closed loops; `--capacity` also searches for the highest rate that holds, which
takes minutes for each. Leaves a run's folder for each, and versus.md.

Stock vLLM runs the model of a CPU in a second process, and both spin for a second after each step: three of
them leave two cores no time for anything else. They are given the executor of one process that our workers
have; `--as-it-comes` leaves it away.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests import estimates, results
from loadtests.bench.report import number, table
from loadtests.bench.servers import Engine, Kind, Servers
from loadtests.bench.stats import spread
from loadtests.bench.systems import VllmRouter
from loadtests.results import Measured, Run
from workers.shared.contract import POOLS

USERS = (1, 16, 64)
RATES = "50,100,200,300,400"
ONE_PROCESS = ("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor")


@dataclass(frozen=True)
class System:
    """What is compared: `arguments` are those of `python -m loadtests` that say where and how to ask."""

    name: str
    arguments: Sequence[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--scenario", default="common", help="default: %(default)s")
    parser.add_argument("--rates", default=RATES, help="requests/s, one after another (default: %(default)s)")
    parser.add_argument("--capacity", metavar="SLO", help="search for the highest rate that holds this")
    parser.add_argument("--seconds", type=float, default=10, help="of each load (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/versus"), help="default: %(default)s")
    parser.add_argument("--as-it-comes", action="store_true", help="stock vLLM with its own executor")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    servers = Servers(options.out, () if options.as_it_comes else ONE_PROCESS)
    found: dict[str, list[Run]] = {}
    try:
        for round_ in range(options.rounds):
            for kind in ("stock", "routed", "triptych"):
                with _system(kind, servers) as system:
                    print(f"round {round_ + 1} of {options.rounds}: {system.name}", flush=True)
                    for name, command in _commands(options):
                        out = options.out / f"{kind}-{name}-{round_ + 1}"
                        _loadtest([*command, *system.arguments, "--out", str(out)])
                        found.setdefault(system.name, []).append(results.read(out))
    finally:
        servers.stop()
    text = markdown(found)
    (options.out / "versus.md").write_text(text)
    print(text)
    return 0


def _commands(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    common = ["--scenario", options.scenario, "--seconds", str(options.seconds)]
    yield "steps", ["run", "--shape", "step", "--rate", options.rates, *common]
    if options.capacity:
        yield "capacity", ["find-capacity", "--slo", options.capacity, *common]
    for users in USERS:
        yield f"{users}-users", ["run", "--users", str(users), *common]


def _loadtest(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "loadtests", *arguments], stdout=subprocess.PIPE, text=True)
    # 1: something was wrong with replies, which the table has to say.
    if done.returncode not in (0, 1):
        raise SystemExit(f"loadtests {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")


@contextmanager
def _system(kind: str, servers: Servers) -> Iterator[System]:
    """One of the three, ready, with nothing else running."""
    engine: Kind = "worker" if kind == "triptych" else "stock"
    servers.start(Engine(engine, "nano", pool) for pool in POOLS)
    if kind == "triptych":
        ours = servers.router(*((pool, servers.worker("nano", pool).url) for pool in POOLS))
        try:
            yield System("Triptych", ["--url", ours.url])
        finally:
            ours.kill()
        return
    stocks = {pool: servers.stock("nano", pool) for pool in POOLS}
    vllm = ["--dialect", "vllm", "--model", "stock"]
    if kind == "stock":
        urls = [f"{pool}={server.url}" for pool, server in stocks.items()]
        yield System("three stock vLLM", [*vllm, *(part for url in urls for part in ("--url", url))])
        return
    routers: list[VllmRouter] = []
    try:
        for pool, server in stocks.items():
            routers.append(VllmRouter(servers.log(f"vllm-router-{pool}"), [server]).wait_until_ready())
        urls = [f"{pool}={router.url}" for pool, router in zip(stocks, routers, strict=True)]
        name = "three stock vLLM, each behind vllm-router"
        yield System(name, [*vllm, *(part for url in urls for part in ("--url", url))])
    finally:
        for router in routers:
            router.kill()


def markdown(found: dict[str, list[Run]]) -> str:
    """A table for each kind of load, medians over the rounds with least and largest."""
    lines = ["Rising rates, open loop:", "", *_table("due/s", found, lambda run: run.loop == "open")]
    lines += ["", "Closed loops:", "", *_table("users", found, lambda run: run.loop == "closed")]
    searched = {system: [run for run in runs if run.capacity] for system, runs in found.items()}
    if any(searched.values()):
        rates = {
            system: [run.capacity.rate for run in runs if run.capacity] for system, runs in searched.items()
        }
        objective = next(run.capacity.objective for runs in searched.values() for run in runs if run.capacity)
        rows = [(system, _spread(its)) for system, its in rates.items()]
        lines += ["", f"Highest rate with {objective}, requests/s:", "", *table(("system", "capacity"), rows)]
    return "\n".join(lines) + "\n"


def _table(load: str, found: dict[str, list[Run]], wanted: Callable[[Run], bool]) -> list[str]:
    cells: dict[tuple[float, str], list[Measured]] = {}
    for system, runs in found.items():
        for run in runs:
            for measured in run.segments if wanted(run) and not run.capacity else ():
                put_on = measured.segment.rate or measured.segment.users or (0.0, 0.0)
                cells.setdefault((put_on[0], system), []).append(measured)
    order = list(found)
    rows = [
        (
            f"{put_on:g}",
            system,
            _spread([estimates.throughput([one]).value for one in its]),
            _spread([time.value * 1e3 for one in its if (time := estimates.latency([one], 0.5))]),
            _spread([time.value * 1e3 for one in its if (time := estimates.latency([one], 0.99))]),
            _failures(its),
        )
        for (put_on, system), its in sorted(
            cells.items(), key=lambda cell: (cell[0][0], order.index(cell[0][1]))
        )
    ]
    return table((load, "system", "replies/s", "p50 ms", "p99 ms", "failed or wrong"), rows)


def _failures(measured: Sequence[Measured]) -> str:
    kinds = estimates.failures(measured)
    return ", ".join(f"{count:,} x {kind}" for kind, count in kinds.items()) or "0"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    median, low, high = spread(values)
    return number(median) if len(values) == 1 else f"{number(median)} ({number(low)} to {number(high)})"


if __name__ == "__main__":
    sys.exit(main())
