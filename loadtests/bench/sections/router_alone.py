"""The router alone: requests a second and CPU by reply form, and what it adds to a single request."""

from collections.abc import Callable, Coroutine
from typing import Any

from loadtests.bench.loops import Request, Round, closed_loop
from loadtests.bench.measure import Row, Trial, interleaved
from loadtests.bench.sections import Section, Setup
from loadtests.bench.servers import StubWorker
from loadtests.bench.systems import ask_router, ask_worker
from loadtests.server_processes import Router

FORMS = ("float", "base64", "binary", "npy")
CONCURRENCY = 64
BUSY, ALONE = f"one text a request, concurrency {CONCURRENCY}", "one text a request, concurrency 1"
DIRECT, THROUGH = "worker direct", "router, base64"
# About as many requests as a second takes.
BUSY_RATE, ALONE_RATE = 2000, 600


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    stub = servers.add(StubWorker(servers.log("stub")))
    router = servers.router(("retrieval", stub.url))
    busy, alone = (round(rate * scale.seconds) for rate in (BUSY_RATE, ALONE_RATE))
    return await measure(router, stub, scale.rounds, busy, alone)


async def measure(router: Router, stub: StubWorker, rounds: int, busy: int, alone: int) -> list[Row]:
    """A row for each reply form under load (`busy` requests), and two for one request at a time (`alone`)."""

    def trial(load: str, system: str, url: str, make: Callable[[list[str]], bytes]) -> Trial:
        count, connections = (busy, CONCURRENCY) if load == BUSY else (alone, 1)

        def prepare(number: int, rate: float) -> Coroutine[Any, Any, Round]:
            requests = [Request(place, make([query(place)])) for place in range(count)]
            return closed_loop(url, requests, connections)

        return Trial(load, system, {"router": router, "stub worker": stub}, prepare)

    def ask(form: str) -> Callable[[list[str]], bytes]:
        headers = {"Accept": "application/x-npy"} if form == "npy" else None
        return lambda texts: ask_router(
            router.url, texts, "float" if form == "npy" else form, headers=headers
        )

    trials = [trial(BUSY, f"router, {form}", router.url, ask(form)) for form in FORMS]
    trials.append(trial(ALONE, DIRECT, stub.url, lambda texts: ask_worker(stub.url, texts)))
    trials.append(trial(ALONE, THROUGH, router.url, ask("base64")))
    return await interleaved(trials, rounds, settle_seconds=0)


def query(number: int) -> str:
    """About 20 tokens."""
    return f"query number {number}: " + "how do plants turn light into food and what do they need for it " * 2


SECTION = Section("The router alone, against a worker that answers at once (2,048 dimensions)", (), run)
