"""The router alone: requests a second and CPU by reply form, and what it adds to a single request."""

from functools import partial

from triptych.loadtests.bench.measure import Bench, Result, Row, Scale
from triptych.loadtests.bench.sections.compared import RETRIEVAL, Load, side_by_side
from triptych.loadtests.bench.systems import System, ask_router, ask_worker
from triptych.loadtests.server_processes import Server

FORMS = ("float", "base64", "binary", "npy")
CONCURRENCY = 64
BUSY, ALONE = f"one text a request, concurrency {CONCURRENCY}", "one text a request, concurrency 1"
DIRECT, THROUGH = "worker direct", "router, base64"


async def run(bench: Bench, result: Result) -> None:
    await bench.servers.need()
    stub = await bench.servers.stub()
    router = await bench.servers.router((RETRIEVAL, stub))
    result.rows += await measure(bench.scale, router, stub)


async def measure(scale: Scale, router: Server, stub: Server) -> list[Row]:
    """A row for each reply form under load, and two for one request at a time."""
    processes = {"router": router, "stub worker": stub}
    ask = {form: partial(ask_router, router.url, form=form) for form in FORMS}
    ask["npy"] = partial(ask_router, router.url, headers={"Accept": "application/x-npy"})
    forms = [System(f"router, {form}", processes, router.url, make) for form, make in ask.items()]
    direct = System(DIRECT, processes, stub.url, partial(ask_worker, stub.url))
    through = System(THROUGH, processes, router.url, ask["base64"])
    scale = scale._replace(settle_seconds=0)
    busy = await side_by_side(scale, Load(BUSY, CONCURRENCY), forms, queries)
    return busy + await side_by_side(scale, Load(ALONE, 1), [direct, through], queries)


def queries(seed: str, count: int, texts: int, tokens: int) -> list[list[str]]:
    """One of about 30 tokens a request."""
    question = "how do plants turn light into food and what do they need for it " * 2
    return [[f"query number {number}: {question}"] for number in range(count)]
