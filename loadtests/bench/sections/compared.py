"""Items a second of several systems with the same texts: by load, and against the published recipe."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from triptych.loadtests.bench import systems
from triptych.loadtests.bench.loops import Request, closed_loop
from triptych.loadtests.bench.measure import Bench, Result, Row, Scale, Sending, Trial, interleaved
from triptych.loadtests.bench.servers import Engine, SizeName
from triptych.loadtests.bench.systems import System
from triptych.loadtests.bench.texts import Lists
from triptych.workers.checkpoints.variant import read_variant
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL, V5_NANO

RETRIEVAL: PoolName = "retrieval"


class Load(NamedTuple):
    """Requests of `texts` texts of `tokens` tokens each, over `concurrency` connections."""

    name: str
    concurrency: int
    tokens: int = 20
    texts: int = 1


SHORT = {
    concurrency: Load(f"20-token texts, concurrency {concurrency}", concurrency)
    for concurrency in (1, 16, 64, 256)
}
LISTS = Load("32 texts of 20 tokens a request, concurrency 8", 8, texts=32)
LONG = Load("512-token texts, concurrency 16", 16, tokens=512)
BASE64 = Load("20-token texts as base64, concurrency 64", 64)
QUICK = (SHORT[1], SHORT[16], SHORT[64], LISTS)
ALL = (*SHORT.values(), LISTS, LONG, BASE64)
RECIPE: dict[SizeName, list[Load]] = {
    "nano": [
        Load("20-token texts against the recipe, concurrency 16", 16),
        Load("512-token texts against the recipe, concurrency 16", 16, tokens=512),
    ],
    "tiny": [Load("512-token texts against the recipe, tiny variant, concurrency 4", 4, tokens=512)],
}


async def throughput(
    bench: Bench, result: Result, pool: PoolName = RETRIEVAL, loads: Sequence[Load] = ALL
) -> None:
    """By load, against stock vLLM; the model of `retrieval` also behind vLLM's router."""
    servers, family = bench.servers, BY_POOL[pool]
    stock, worker = await servers.need(Engine("stock", pool=pool), Engine(pool=pool))
    texts, router = await servers.texts(pool=pool), await servers.router((pool, worker))
    vllm_router = await servers.vllm_router(stock) if pool == RETRIEVAL else None
    for load in QUICK if bench.scale.quick else loads:
        form: systems.Form = "base64" if load is BASE64 else "float"
        compared = [systems.stock(stock, form, special_tokens=family.special_tokens)]
        if vllm_router:
            compared.append(systems.stock(stock, form, vllm_router))
        compared += [systems.worker(worker), systems.routed(router, worker, form, family.name)]
        result.rows += await side_by_side(bench.scale, load, compared, texts)


async def encoder(bench: Bench, result: Result) -> None:
    """An encoder, whose last token is the vector."""
    await throughput(bench, result, V5_NANO.pools[0], (SHORT[16], SHORT[64], LISTS))


async def recipe(bench: Bench, result: Result, size: SizeName) -> None:
    """Against the published recipe."""
    servers = bench.servers
    worker, token_level = await servers.need(Engine(size=size), Engine("token-level stock", size))
    texts, dimensions = await servers.texts(size), read_variant(await servers.variant(size)).dimensions
    compared = [
        systems.worker(worker),
        systems.routed(await servers.router((RETRIEVAL, worker)), worker, "float"),
        systems.recipe(token_level, "float", dimensions),
        systems.recipe(token_level, "base64", dimensions),
    ]
    for load in RECIPE[size]:
        result.rows += await side_by_side(bench.scale, load, compared, texts)


async def side_by_side(scale: Scale, load: Load, compared: Sequence[System], lists: Lists) -> list[Row]:
    """One row for each system. All get the same texts."""
    return await interleaved([trial(load, one, lists, scale.seconds) for one in compared], scale)


def trial(load: Load, system: System, lists: Lists, seconds: float) -> Trial:
    """A closed loop of as many requests as take about `seconds` at the last round's rate."""

    def prepare(number: int, rate: float) -> Sending:
        least = max(3 * load.concurrency, 24 // load.texts)
        enough = math.ceil(rate * seconds / load.texts) + load.concurrency
        of_round = lists(f"{load.name} {number}", max(least, enough), load.texts, load.tokens)
        requests = [
            Request(place, system.make(texts), load.texts, None if place % system.sample else system.read)
            for place, texts in enumerate(of_round)
        ]
        return closed_loop(system.url, requests, load.concurrency)

    return Trial(load.name, system.name, system.processes, prepare)
