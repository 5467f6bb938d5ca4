"""How the router's CPU time grows: with requests, processes, API keys, replicas and queues.

Its worker answers at once. Replicas and queues are measured in this process, without HTTP.
"""

import gc
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from triptych.loadtests.bench.measure import Bench, Result, Row, Trial, interleaved
from triptych.loadtests.bench.sections.compared import Load, trial
from triptych.loadtests.bench.systems import System, ask_router
from triptych.loadtests.server_processes import Server
from triptych.loadtests.simulate.profiles import SHORT, Profile, default
from triptych.loadtests.simulate.profiles import Setup as Deployment
from triptych.loadtests.simulate.simulation import POOL, WIRE, simulate
from triptych.router.items import Item, Job, Priority
from triptych.router.pool.queue import PoolQueue

CPU_MS, EXPONENT = "CPU ms", "grows at most as n to the power of"
ITEMS, TOKENS, PROCESSES = (1, 8, 64, 512), (20, 512, 4096, 32_768), (1, 2, 4)
KEYS, REPLICAS, WAITING = (1, 100, 10_000), (1, 10, 100, 1000), (32, 512, default("queue_items"))
CONNECTIONS, SECONDS_FACTOR = 16, 1 / 3
# A word that is one token.
WORD = " light"
# A fast engine, and how busy it is.
ENGINE, BUSY = Profile("a step of 1 ms", 1e-3, 0.0, 0.0, 0.0), 0.5
BATCH, ROUND_BATCHES = 32, 200


async def run(bench: Bench, result: Result) -> None:
    def add(rows: Mapping[int, Row]) -> None:
        costs = {n: median(row.figures[CPU_MS]) for n, row in rows.items()}
        [*_, last] = rows.values()
        last.figures[EXPONENT] = [exponent(costs)]
        result.rows += rows.values()

    for trials in await through_router(bench):
        rows = await interleaved([*trials.values()], bench.scale._replace(settle_seconds=0))
        for row in rows:
            row.figures[CPU_MS] = [1e3 * row.cpu["router"] / row.requests]
        add(dict(zip(trials, rows, strict=True)))
    for title, (values, cost) in COSTS.items():
        by_n = {n: Row(load=title, system=f"n = {n:,}", figures={CPU_MS: []}) for n in values}
        for _ in range(bench.scale.rounds):
            for n, row in by_n.items():
                gc.collect()
                row.figures[CPU_MS].append(cost(n))
        add(by_n)


async def through_router(bench: Bench) -> list[dict[int, Trial]]:
    """Costs of a whole router process by n."""
    servers = bench.servers
    await servers.need()
    start = partial(servers.router, (POOL, await servers.stub()))

    def cost(what: str, n: int, router: Server, items: int = 1, tokens: int = 20, keys: int = 0) -> Trial:
        numbers = itertools.count()

        def make(texts: Sequence[str]) -> bytes:
            key = {"Authorization": f"Bearer key-{next(numbers) % keys}"} if keys else None
            return ask_router(router.url, texts, "base64", headers=key)

        load = Load(f"n {what}, a request", CONNECTIONS, tokens, items)
        system = System(f"n = {n:,}", {"router": router}, router.url, make)
        return trial(load, system, texts, bench.scale.seconds * SECONDS_FACTOR)

    async def with_keys(count: int) -> Server:
        digests = {f"key-{n}": hashlib.sha256(f"key-{n}".encode()).hexdigest() for n in range(count)}
        entries = [
            {"name": name, "sha256": digest, "requests_per_minute": 10**9} for name, digest in digests.items()
        ]
        file = servers.folder / f"keys-{count}.json"
        file.write_text(json.dumps(entries))
        return await start(api_keys_file=file)

    one = await start()
    return [
        {n: cost("items a request", n, one, items=n) for n in ITEMS},
        {n: cost("tokens a text", n, one, tokens=n) for n in TOKENS},
        {n: cost("router processes", n, await start(processes=n)) for n in PROCESSES},
        {n: cost("API keys", n, await with_keys(n), keys=n) for n in KEYS},
    ]


def texts(seed: str, count: int, texts: int, tokens: int) -> list[list[str]]:
    """Lists of texts of about `tokens` tokens."""
    words = WORD * (tokens - 6)
    return [[f"{place + index}{words}" for index in range(texts)] for place in range(count)]


def exponent(costs: Mapping[int, float]) -> float:
    """The steepest growth of a cost between two n, as a power of n."""
    return max(
        math.log(more / cost) / math.log(larger / n)
        for n, cost in costs.items()
        for larger, more in costs.items()
        # Closer ones would show noise.
        if larger >= 2 * n
    )


def of_replicas(n: int) -> float:
    """CPU ms for a request among n replicas: the real dispatcher, simulated engines and time."""
    deployment = Deployment(profile=ENGINE, lengths=SHORT, replicas=n)
    rate = BUSY * deployment.capacity * n
    begin = time.process_time()
    outcome = simulate(deployment, BUSY, max(1000, 2 * n) / rate)
    return 1e3 * (time.process_time() - begin) / outcome.requests


def of_queue(n: int, *, with_keys: bool) -> float:
    """CPU ms to check, admit and take a batch while n items wait, each of a key of its own or all without."""
    queue = PoolQueue(default("queue_tokens"), default("queue_items"))
    places = itertools.count()

    def item() -> Item:
        made = Item(POOL, WIRE, 20, 0, "input")
        Job([made], 0.0, math.inf, lambda _: None, key=f"key {next(places) % n}" if with_keys else "")
        return made

    for _ in range(n - BATCH):
        queue.admit([item()], 0.0)
    batches = [[item() for _ in range(BATCH)] for _ in range(ROUND_BATCHES)]
    begin = time.process_time()
    for batch in batches:
        for one in batch:
            queue.check_room([one], 0.0, math.inf)
            queue.admit([one], 0.0)
        taken = queue.take(1 << 30, BATCH, Priority.INTERACTIVE)
        if taken is None or len(taken.items) < BATCH:
            raise RuntimeError("the queue gave no full batch")
    return 1e3 * (time.process_time() - begin) / ROUND_BATCHES


COSTS: dict[str, tuple[Sequence[int], Callable[[int], float]]] = {
    "n replicas, a request": (REPLICAS, of_replicas),
    "n items waiting, a batch of 32": (WAITING, partial(of_queue, with_keys=False)),
    "n items waiting, each of its own key, a batch of 32": (WAITING, partial(of_queue, with_keys=True)),
}
"""Measured in this process: the values of n, and CPU ms."""
