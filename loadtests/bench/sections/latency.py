"""Latency of queries while a corpus is indexed: idle, with two classes, and with one class."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from itertools import takewhile
from typing import Any

from loadtests.bench.loops import Request, Round, closed_loop, open_loop, poisson
from loadtests.bench.measure import Row, Trial, interleaved
from loadtests.bench.sections import Section, Setup
from loadtests.bench.servers import Engine
from loadtests.bench.systems import ask_router
from loadtests.bench.texts import Texts

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


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    worker = servers.engine("worker")
    texts = Texts(servers.checkpoint())
    router = servers.router(("retrieval", worker.url))
    seconds = scale.seconds * SECONDS_FACTOR

    def prepare(number: int, rate: float, system: str) -> Coroutine[Any, Any, Round]:
        headers = {"x-priority": "bulk"} if system == ONE_CLASS else None
        moments = poisson(QUERIES_PER_SECOND, seconds, number)
        queries = [
            Request(place, ask_router(router.url, its, headers=headers))
            for place, its in enumerate(texts.lists(f"query {system} {number}", len(moments), 1, 20))
        ]
        count = round(BULK_TEXTS_PER_SECOND * (seconds + BULK_FILL_SECONDS) / BULK_TEXTS)
        passages = texts.lists(f"bulk {system} {number}", count, BULK_TEXTS, BULK_TOKENS)
        bulk = [
            Request(place, ask_router(router.url, its, "base64", task="retrieval.passage"), BULK_TEXTS)
            for place, its in enumerate(passages if system != IDLE else ())
        ]
        return with_bulk(router.url, queries, moments, bulk)

    trials = [
        Trial(LOAD, system, {"router": router, "worker": worker}, partial(prepare, system=system))
        for system in (IDLE, CLASSES, ONE_CLASS)
    ]
    return await interleaved(trials, scale.rounds)


async def with_bulk(url: str, queries: list[Request], moments: list[float], bulk: list[Request]) -> Round:
    """The round of the queries. Bulk requests begin before them and end after them."""
    wanted = True

    rate = len(queries) / moments[-1]
    if not bulk:
        return Round(await open_loop(url, queries, moments), rate)
    running = asyncio.create_task(closed_loop(url, takewhile(lambda _: wanted, bulk), BULK_CONNECTIONS))
    await asyncio.sleep(BULK_FILL_SECONDS)
    replies = await open_loop(url, queries, moments)
    if running.done():
        raise RuntimeError("the bulk ended before the queries, so the pool was not full all the time")
    wanted = False
    done = await running
    return Round(replies, rate, {BULK_RATE: done.items_per_second}, done.replies)


SECTION = Section("Queries while bulk saturates the pool, nano variant", (Engine("worker"),), run)
