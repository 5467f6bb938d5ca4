"""The router alone: requests a second and CPU by reply form, and what it adds to the time of one request."""

from pathlib import Path

from tqdm import tqdm

from loadtests.bench.http import Request, post
from loadtests.bench.load import Stream, Vector, closed_loop
from loadtests.bench.measure import Collector, Groups
from loadtests.bench.results import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.stats import percentile
from loadtests.bench.systems import EMBEDDINGS, our_body
from loadtests.processes import Process, Router, free_port
from workers.shared.contract import ENCODE_PATH, READY_PATH, EncodeRequest, Item, Text, encode_request

FORMS = ("float", "base64", "binary", "npy")
CONCURRENCY = 64
BUSY, ALONE = f"one text a request, concurrency {CONCURRENCY}", "one text a request, concurrency 1"
DIRECT, THROUGH = "worker direct", "router, base64"
OVERHEAD = "x-router-overhead, p50 in ms"
# About as many as are answered in a second.
BUSY_RATE, ALONE_RATE = 2000, 600


class StubWorker(Process):
    """`python -m loadtests.bench.stub`, which answers every batch with `status`."""

    def __init__(self, log: Path, status: int = 200) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            ["-m", "loadtests.bench.stub", "--port", str(port), "--status", str(status)], {}, log
        )

    def wait_until_ready(self) -> "StubWorker":
        self.wait_ready(self.url + READY_PATH)
        return self


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    stub = StubWorker(servers.log("stub"))
    try:
        router = servers.router(("retrieval", stub.wait_until_ready().url))
        try:
            return await measure(router, stub, scale.rounds, scale.seconds)
        finally:
            router.kill()
    finally:
        stub.kill()


async def measure(router: Router, stub: StubWorker, rounds: int, seconds: float) -> list[Row]:
    """A row for each reply form under load, and two for one request at a time; a first round warms up."""
    busy, alone = round(BUSY_RATE * seconds), round(ALONE_RATE * seconds)
    collectors: list[Collector] = []
    for number in tqdm(range(rounds + 1), desc="router alone", unit="round", leave=False):
        if number < 2:
            # Those of the warm-up are thrown away.
            collectors = [Collector(BUSY, f"router, {form}") for form in FORMS]
            collectors += [Collector(ALONE, DIRECT), Collector(ALONE, THROUGH)]
        streams = [Stream(router.url, to_router(router, form, busy), CONCURRENCY) for form in FORMS]
        streams += [Stream(stub.url, to_stub(stub, alone), 1)]
        streams += [Stream(router.url, to_router(router, "base64", alone), 1)]
        for collector, stream in zip(collectors, streams, strict=True):
            groups: Groups = {"router": [router], "stub worker": [stub]}
            with collector.metered(groups):
                done = await closed_loop([stream], no_vectors)
                collector.add(done.replies, done.items_per_second)
            overheads = [reply.overhead * 1e3 for reply in done.replies if reply.overhead is not None]
            if stream.connections == 1 and overheads:
                collector.figure(OVERHEAD, percentile(overheads, 0.5))
    return [collector.row for collector in collectors]


def to_router(router: Router, form: str, count: int) -> list[Request]:
    """Queries, each another one, to be answered in a form."""
    headers = {"Accept": "application/x-npy"} if form == "npy" else {}
    kind = "float" if form == "npy" else form
    return [
        Request(
            number,
            post(router.url + EMBEDDINGS, our_body([query(number)], "retrieval.query", kind), headers),
        )
        for number in range(count)
    ]


def to_stub(stub: StubWorker, count: int) -> list[Request]:
    """The same queries, as the router asks a worker for them."""
    return [
        Request(
            number,
            post(stub.url + ENCODE_PATH, encode_request(EncodeRequest([Item(Text(query(number), "query"))]))),
        )
        for number in range(count)
    ]


def query(number: int) -> str:
    """About 20 tokens."""
    return f"query number {number}: " + "how do plants turn light into food and what do they need for it " * 2


def no_vectors(body: bytes) -> list[Vector]:
    raise AssertionError("no reply of this benchmark is kept. This is a bug.")


SECTION = Section("The router alone, against a worker that answers at once (2,048 dimensions)", (), run)
