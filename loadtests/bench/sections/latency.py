"""Latency of queries while a corpus is indexed: idle, with two classes, and with one class."""

import asyncio
from functools import partial
from itertools import takewhile

from triptych.loadtests.bench.loops import Request, Round, closed_loop, open_loop, poisson
from triptych.loadtests.bench.measure import Bench, Result, Sending, Trial, interleaved
from triptych.loadtests.bench.servers import Engine
from triptych.loadtests.bench.systems import ask_router

QUERIES_PER_SECOND = 30
BULK_TEXTS, BULK_TOKENS, BULK_CONNECTIONS = 128, 100, 8
BULK_FILL_SECONDS = 1.5
# More than two cores can do.
BULK_TEXTS_PER_SECOND = 3000
LOAD = f"20-token queries, {QUERIES_PER_SECOND} a second"
IDLE, CLASSES, ONE_CLASS = "idle", "bulk, two classes", "bulk, all in one class"
BULK_RATE = "bulk texts a second"
# Long rounds, so that the p99 is not the single slowest query.
SECONDS_FACTOR = 5


async def run(bench: Bench, result: Result) -> None:
    servers, scale = bench.servers, bench.scale
    [worker] = await servers.need(Engine())
    texts = await servers.texts()
    router = await servers.router(("retrieval", worker))
    seconds = scale.seconds * SECONDS_FACTOR
    lists = round(BULK_TEXTS_PER_SECOND * (seconds + BULK_FILL_SECONDS) / BULK_TEXTS)
    as_query = partial(ask_router, router.url)
    as_passage = partial(ask_router, router.url, form="base64", task="retrieval.passage")

    def prepare(system: str, number: int, rate: float) -> Sending:
        moments = poisson(QUERIES_PER_SECOND, seconds, number)
        headers = {"x-priority": "bulk"} if system == ONE_CLASS else None
        wanted = texts(f"query {system} {number}", len(moments), 1, 20)
        queries = [Request(n, as_query(one, headers=headers)) for n, one in enumerate(wanted)]
        if system == IDLE:
            return alone(router.url, queries, moments)
        wanted = texts(f"bulk {system} {number}", lists, BULK_TEXTS, BULK_TOKENS)
        bulk = [Request(n, as_passage(one), BULK_TEXTS) for n, one in enumerate(wanted)]
        return beside_bulk(router.url, queries, moments, bulk)

    groups = {"router": router, "worker": worker}
    trials = [Trial(LOAD, one, groups, partial(prepare, one)) for one in (IDLE, CLASSES, ONE_CLASS)]
    result.rows += await interleaved(trials, scale)


async def alone(url: str, queries: list[Request], moments: list[float]) -> Round:
    return Round(await open_loop(url, queries, moments), len(queries) / moments[-1])


async def beside_bulk(url: str, queries: list[Request], moments: list[float], bulk: list[Request]) -> Round:
    """The round of the queries. Bulk requests begin before them and end after them."""
    wanted = True
    sending = closed_loop(url, takewhile(lambda _: wanted, bulk), BULK_CONNECTIONS)
    running = asyncio.create_task(sending)
    await asyncio.sleep(BULK_FILL_SECONDS)
    done = await alone(url, queries, moments)
    if running.done():
        raise RuntimeError("the bulk ended before the queries, so the pool was not full all the time")
    wanted = False
    full = await running
    return done._replace(figures={BULK_RATE: full.items_per_second}, beside=full.replies)
