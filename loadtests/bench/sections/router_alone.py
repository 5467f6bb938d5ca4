"""The router alone: requests a second and CPU by reply form, and what it adds to a single request."""

from collections.abc import Callable
from functools import partial

from triptych.loadtests.bench.loops import Request, closed_loop
from triptych.loadtests.bench.measure import Result, Row, Sending, Trial, interleaved
from triptych.loadtests.bench.sections import Bench, Section
from triptych.loadtests.bench.systems import ask_router, ask_worker
from triptych.loadtests.server_processes import Server

FORMS = ("float", "base64", "binary", "npy")
CONCURRENCY = 64
BUSY, ALONE = f"one text a request, concurrency {CONCURRENCY}", "one text a request, concurrency 1"
DIRECT, THROUGH = "worker direct", "router, base64"
# About as many requests as a second takes.
BUSY_RATE, ALONE_RATE = 2000, 600


async def run(bench: Bench, result: Result) -> None:
    scale = bench.scale
    await bench.servers.need()
    stub = await bench.servers.stub()
    router = await bench.servers.router(("retrieval", stub))
    busy, alone = (round(rate * scale.seconds) for rate in (BUSY_RATE, ALONE_RATE))
    result.rows += await measure(router, stub, scale.rounds, busy, alone)


async def measure(router: Server, stub: Server, rounds: int, busy: int, alone: int) -> list[Row]:
    """A row for each reply form under load (`busy` requests), and two for one request at a time (`alone`)."""

    def trial(load: str, system: str, url: str, make: Callable[[list[str]], bytes]) -> Trial:
        count, connections = (busy, CONCURRENCY) if load == BUSY else (alone, 1)

        def prepare(number: int, rate: float) -> Sending:
            return closed_loop(url, [Request(n, make([query(n)])) for n in range(count)], connections)

        return Trial(load, system, {"router": router, "stub worker": stub}, prepare)

    ask = {form: partial(ask_router, router.url, form=form) for form in FORMS}
    ask["npy"] = partial(ask_router, router.url, headers={"Accept": "application/x-npy"})
    trials = [trial(BUSY, f"router, {form}", router.url, make) for form, make in ask.items()]
    trials.append(trial(ALONE, DIRECT, stub.url, partial(ask_worker, stub.url)))
    trials.append(trial(ALONE, THROUGH, router.url, ask["base64"]))
    return await interleaved(trials, rounds, settle_seconds=0)


def query(number: int) -> str:
    """About 20 tokens."""
    return f"query number {number}: " + "how do plants turn light into food and what do they need for it " * 2


SECTION = Section("The router alone, against a worker that answers at once (2,048 dimensions)", run)
