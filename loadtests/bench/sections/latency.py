"""Latency of queries while a corpus is indexed: idle, with two classes, and with one class."""

import asyncio
from collections.abc import Iterator

from tqdm import tqdm

from loadtests.bench.loops import Reply, Request, Round, closed_loop, open_loop, poisson
from loadtests.bench.measure import SETTLE_SECONDS, Collector, Groups
from loadtests.bench.rows import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Engine
from loadtests.bench.stats import percentile
from loadtests.bench.systems import ask_router, read_floats
from loadtests.bench.texts import Texts
from loadtests.processes import Router

QUERIES_PER_SECOND = 30
BULK_TEXTS, BULK_TOKENS, BULK_CONNECTIONS = 128, 100, 8
BULK_FILL_SECONDS = 1.5
# More than two cores can do.
BULK_TEXTS_PER_SECOND = 3000
LOAD = f"20-token queries, {QUERIES_PER_SECOND} a second"
IDLE, CLASSES, ONE_CLASS = "idle", "bulk, two classes", "bulk, all in one class"
P50, P99 = "p50 of all rounds in ms", "p99 of all rounds in ms"
BULK_RATE = "bulk texts a second"
# Long rounds, so that the p99 is not the single slowest query.
SECONDS_FACTOR = 5


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    worker = servers.worker()
    texts = Texts(servers.checkpoint("nano"))
    router = servers.router(("retrieval", worker.url))
    groups: Groups = {"router": [router], "worker": [worker]}
    seconds = scale.seconds * SECONDS_FACTOR
    collectors = {system: Collector(LOAD, system) for system in (IDLE, CLASSES, ONE_CLASS)}
    latencies: dict[str, list[float]] = {system: [] for system in collectors}
    try:
        for number in tqdm(range(scale.rounds), desc="queries under bulk", unit="round", leave=False):
            for system, collector in collectors.items():
                headers = {"x-priority": "bulk"} if system == ONE_CLASS else None
                moments = poisson(QUERIES_PER_SECOND, seconds, number)
                queries = [
                    Request(place, ask_router(router, [text], headers=headers))
                    for place, text in enumerate(texts.draw(f"query {system} {number}", len(moments), 20))
                ]
                bulk = bulk_requests(router, texts, f"bulk {system} {number}", seconds)
                await asyncio.sleep(SETTLE_SECONDS)
                with collector.metered(groups):
                    if system == IDLE:
                        found = await open_loop(router.url, queries, moments)
                    else:
                        found, done = await with_bulk(router, queries, moments, bulk)
                        collector.figure(BULK_RATE, done.items_per_second)
                        count_bulk(collector.row, done)
                    collector.add(found, len(found) / seconds)
                latencies[system] += [(reply.end - reply.due) * 1e3 for reply in found if reply.good]
    finally:
        router.kill()
    for system, collector in collectors.items():
        if latencies[system]:
            collector.figure(P50, percentile(latencies[system], 0.5))
            collector.figure(P99, percentile(latencies[system], 0.99))
    return [collector.row for collector in collectors.values()]


def bulk_requests(router: Router, texts: Texts, seed: str, seconds: float) -> list[Request]:
    """Lists of passages, enough for a round."""
    count = round(BULK_TEXTS_PER_SECOND * (seconds + BULK_FILL_SECONDS) / BULK_TEXTS)
    passages = texts.draw(seed, count * BULK_TEXTS, BULK_TOKENS)
    lists = (passages[number * BULK_TEXTS : (number + 1) * BULK_TEXTS] for number in range(count))
    return [
        Request(number, ask_router(router, its, "base64", task="retrieval.passage"), BULK_TEXTS)
        for number, its in enumerate(lists)
    ]


async def with_bulk(
    router: Router, queries: list[Request], moments: list[float], bulk: list[Request]
) -> tuple[list[Reply], Round]:
    """The replies to the queries, and the bulk round that began before them and ended after them."""
    wanted = True

    def while_wanted() -> Iterator[Request]:
        for request in bulk:
            if not wanted:
                return
            yield request

    running = asyncio.create_task(closed_loop(router.url, while_wanted(), BULK_CONNECTIONS, read_floats))
    await asyncio.sleep(BULK_FILL_SECONDS)
    found = await open_loop(router.url, queries, moments)
    if running.done():
        raise RuntimeError("the bulk ended before the queries, so the pool was not full all the time")
    wanted = False
    return found, await running


def count_bulk(row: Row, bulk: Round) -> None:
    """Bulk items share the row's CPU time. Bulk failures are counted apart."""
    for reply in bulk.replies:
        if reply.good:
            row.items += reply.request.items
        else:
            row.fail(f"bulk {reply.status}")


SECTION = Section("Queries while bulk saturates the pool, nano variant", (Engine("worker"),), run)
