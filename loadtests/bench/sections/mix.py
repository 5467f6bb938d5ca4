"""Three tasks over three pools, by `python -m loadtests run`: one router of ours against three stock servers.

Each run's folder stays in `work/mix`, where `python -m loadtests report` and `compare` read it.
"""

import asyncio
import subprocess
import sys

from tqdm import tqdm

from triptych.loadtests import estimates, results
from triptych.loadtests.bench.measure import Row
from triptych.loadtests.bench.sections import Section, Setup
from triptych.loadtests.bench.servers import Engine
from triptych.loadtests.results import WRONG, Measured
from triptych.workers.shared.contract import POOLS

LOADS = {
    "scenario common, 16 users": "--users=16",
    "scenario common, 64 users": "--users=64",
    "scenario common, 200 requests/s": "--rate=200",
}
STOCK, OURS = "(a) three stock vLLM", "(d) router, three workers"
LOADTEST_CPU = "load tester, cores used"
ROUNDS, SECONDS_FACTOR = 2, 5


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    router = servers.router(*((pool, servers.engine("worker", "nano", pool).url) for pool in POOLS))
    stocks = [f"--url={pool}={servers.engine('stock in one process', 'nano', pool).url}" for pool in POOLS]
    systems = {STOCK: ["--dialect=vllm", "--model=stock", *stocks], OURS: [f"--url={router.url}"]}
    rows = {(load, system): Row(load=load, system=system) for load in LOADS for system in systems}
    for number in tqdm(range(min(ROUNDS, scale.rounds)), desc="mix", unit="round", leave=False):
        for (load, system), row in rows.items():
            out = servers.folder / "mix" / f"{load} {system} {number + 1}".replace(" ", "-").replace("/", "-")
            command = [sys.executable, "-m", "triptych.loadtests", "run", *systems[system], LOADS[load]]
            command += ["--scenario=common", f"--seconds={scale.seconds * SECONDS_FACTOR}", f"--out={out}"]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            # 1: some replies were wrong. The row says how many.
            if done.returncode not in (0, 1):
                output = done.stdout + done.stderr
                raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{output}")
            [measured] = results.read(out).segments
            add(row, measured)
    return list(rows.values())


def add(row: Row, measured: Measured) -> None:
    """Add a load test to a row."""
    rate = estimates.items_per_second([measured]).value
    row.items_per_second.append(rate)
    row.items += round(rate * (measured.segment.seconds - measured.segment.settle))
    for share, times in ((0.5, row.p50_ms), (0.99, row.p99_ms)):
        if latency := estimates.latency([measured], share):
            times.append(1e3 * latency.value)
    # The load test checks the vectors of every reply.
    row.requests += estimates.sent([measured])
    row.vectors_checked += estimates.sent([measured])
    row.vectors_wrong += estimates.wrong([measured])
    for kind, count in estimates.failures([measured]).items():
        if not kind.startswith(WRONG):
            row.fail(kind, count)
    row.figures.setdefault(LOADTEST_CPU, []).append(sum(process.cpu for process in measured.processes))


SECTION = Section(
    "Three tasks mixed over three pools, nano variants",
    tuple(Engine(kind, "nano", pool) for kind in ("worker", "stock in one process") for pool in POOLS),
    run,
    quick=False,
)
