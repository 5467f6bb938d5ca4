"""The router alone: requests a second and CPU by reply form, and what it adds to a single request."""

from pathlib import Path

from tqdm import tqdm

from loadtests.bench.connection import post
from loadtests.bench.loops import Request, Vector, closed_loop
from loadtests.bench.measure import Collector
from loadtests.bench.rows import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.stats import percentile
from loadtests.bench.systems import ask_router, worker_body
from loadtests.processes import Process, Router, free_port
from workers.shared.contract import ENCODE_PATH, READY_PATH

FORMS = ("float", "base64", "binary", "npy")
CONCURRENCY = 64
BUSY, ALONE = f"one text a request, concurrency {CONCURRENCY}", "one text a request, concurrency 1"
DIRECT, THROUGH = "worker direct", "router, base64"
OVERHEAD = "x-router-overhead, p50 in ms"
# About as many requests as a second takes.
BUSY_RATE, ALONE_RATE = 2000, 600


class StubWorker(Process):
    """`python -m loadtests.bench.stub` on a free port."""

    def __init__(self, log: Path, status: int = 200) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(["-m", "loadtests.bench.stub", str(port), str(status)], {}, log)

    def wait_until_ready(self) -> "StubWorker":
        self.wait_ready(self.url + READY_PATH)
        return self


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    stub = StubWorker(servers.log("stub"))
    try:
        router = servers.router(("retrieval", stub.wait_until_ready().url))
        try:
            busy, alone = round(BUSY_RATE * scale.seconds), round(ALONE_RATE * scale.seconds)
            return await measure(router, stub, scale.rounds, busy, alone)
        finally:
            router.kill()
    finally:
        stub.kill()


async def measure(router: Router, stub: StubWorker, rounds: int, busy: int, alone: int) -> list[Row]:
    """A row for each reply form under load (`busy` requests), and two for one request at a time (`alone`)."""
    collectors: list[Collector] = []
    for number in tqdm(range(rounds + 1), desc="router alone", unit="round", leave=False):
        if number < 2:
            # The first round is a warm-up.
            collectors = [Collector(BUSY, f"router, {form}") for form in FORMS]
            collectors += [Collector(ALONE, DIRECT), Collector(ALONE, THROUGH)]
        loads = [(router.url, to_router(router, form, busy), CONCURRENCY) for form in FORMS]
        loads += [(stub.url, to_stub(stub, alone), 1), (router.url, to_router(router, "base64", alone), 1)]
        for collector, (url, requests, connections) in zip(collectors, loads, strict=True):
            with collector.metered({"router": [router], "stub worker": [stub]}):
                done = await closed_loop(url, requests, connections, no_vectors)
                collector.add(done.replies, done.items_per_second)
            overheads = [reply.overhead * 1e3 for reply in done.replies if reply.overhead is not None]
            if connections == 1 and overheads:
                collector.figure(OVERHEAD, percentile(overheads, 0.5))
    return [collector.row for collector in collectors]


def to_router(router: Router, form: str, count: int) -> list[Request]:
    headers = {"Accept": "application/x-npy"} if form == "npy" else None
    kind = "float" if form == "npy" else form
    return [
        Request(number, ask_router(router, [query(number)], kind, headers=headers)) for number in range(count)
    ]


def to_stub(stub: StubWorker, count: int) -> list[Request]:
    return [
        Request(number, post(stub.url + ENCODE_PATH, worker_body([query(number)]))) for number in range(count)
    ]


def query(number: int) -> str:
    """About 20 tokens."""
    return f"query number {number}: " + "how do plants turn light into food and what do they need for it " * 2


def no_vectors(body: bytes) -> list[Vector]:
    raise AssertionError("This benchmark keeps no reply. This is a bug.")


SECTION = Section("The router alone, against a worker that answers at once (2,048 dimensions)", (), run)
