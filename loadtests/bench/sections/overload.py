"""Three times the capacity: the share of it that is still served in time, and what happens to the rest."""

from functools import partial

import numpy as np

from triptych.loadtests.bench.loops import (
    TIMEOUT_SECONDS,
    Reply,
    Request,
    Round,
    closed_loop,
    open_loop,
    poisson,
)
from triptych.loadtests.bench.measure import Bench, Result, Scale, Sending, Trial, interleaved
from triptych.loadtests.bench.servers import Engine
from triptych.loadtests.bench.systems import ask_router
from triptych.loadtests.bench.texts import Lists
from triptych.loadtests.server_processes import Server

FACTOR = 3
# Connections that keep the engine busy, by tokens of a text. With 20 tokens, three times the capacity is more
# than the load generator can send.
CONCURRENCY = {512: 64, 128: 256}
DEADLINE_SECONDS = 2.0
# A small queue is full within seconds. It must hold the largest request.
LIMITS = {"queue_items": 512, "max_items": 128}
CAPACITIES = {
    tokens: f"{tokens}-token texts, closed loop, concurrency {most}" for tokens, most in CONCURRENCY.items()
}
OVERLOADS = {tokens: f"{tokens}-token texts, open loop at {FACTOR}x capacity" for tokens in CONCURRENCY}
SYSTEM = "(d) router, worker"
GOODPUT, REFUSED, OTHER = "goodput / capacity", "share refused with 429", "neither in time nor refused"
REFUSAL_MS, AFTER = "p99 of a 429 in ms", "first query afterwards / idle p99"
# The rounds that count take one minute together.
ROUNDS, SECONDS, QUICK_SECONDS = 3, 20.0, 2.0
# The queue fills in the first second, which does not count.
FILL_SECONDS = 1.0
IDLE_QUERIES = 100


async def run(bench: Bench, result: Result) -> None:
    """With an emulated engine: refusals would slow a real one, which shares the CPU with the router."""
    servers, scale = bench.servers, bench.scale._replace(rounds=min(bench.scale.rounds, ROUNDS))
    [worker] = await servers.need(Engine("emulated"))
    router = await servers.router(("retrieval", worker), **LIMITS)
    texts = await servers.texts()
    for tokens in CONCURRENCY:
        result.rows += await interleaved(trials(tokens, router, worker, texts, scale), scale)


def trials(tokens: int, router: Server, worker: Server, texts: Lists, scale: Scale) -> list[Trial]:
    """The capacity for texts of `tokens` tokens, and the outcome of three times as much."""
    seconds = FILL_SECONDS + (QUICK_SECONDS if scale.quick else SECONDS)
    ask = partial(ask_router, router.url, headers={"x-request-timeout-seconds": str(DEADLINE_SECONDS)})
    capacity = 0.0

    def requests(seed: str, count: int) -> list[Request]:
        lists = texts(f"{seed} {tokens}", count, 1, tokens)
        return [Request(place, ask(one)) for place, one in enumerate(lists)]

    async def fill(wanted: list[Request]) -> Round:
        nonlocal capacity
        done = await closed_loop(router.url, wanted, CONCURRENCY[tokens])
        capacity = done.items_per_second
        return done

    async def exceed(queries: list[Request], wanted: list[Request], moments: list[float]) -> Round:
        """Replies within the deadline count; their rate is the goodput. `queries` are sent one by one."""
        idle = await closed_loop(router.url, queries, 1)
        replies = await open_loop(router.url, wanted, moments)
        [first] = (await closed_loop(router.url, queries[:1], 1)).replies
        begin = replies[0].due
        in_time = [reply for reply in replies if reply.good and reply.seconds <= DEADLINE_SECONDS]
        refused = [reply for reply in replies if reply.status == 429]
        counted = sum(begin + FILL_SECONDS < reply.end <= begin + seconds for reply in in_time)
        goodput = counted / (seconds - FILL_SECONDS)
        figures = {
            GOODPUT: goodput / capacity,
            REFUSED: len(refused) / len(replies),
            OTHER: len(replies) - len(refused) - len(in_time),
            REFUSAL_MS: p99(refused) * 1e3,
            AFTER: (first.seconds if first.good else TIMEOUT_SECONDS) / p99(idle.replies),
        }
        return Round(replies, goodput, figures)

    def closed(number: int, rate: float) -> Sending:
        return fill(requests(f"capacity {number}", round(rate * scale.seconds * 2) + 4 * CONCURRENCY[tokens]))

    def open_(number: int, rate: float) -> Sending:
        moments = poisson(FACTOR * capacity, seconds, number)
        queries = requests(f"idle {number}", IDLE_QUERIES)
        return exceed(queries, requests(f"overload {number}", len(moments)), moments)

    groups = {"router": router, "worker": worker}
    loads = {CAPACITIES[tokens]: closed, OVERLOADS[tokens]: open_}
    return [Trial(load, SYSTEM, groups, prepare) for load, prepare in loads.items()]


def p99(replies: list[Reply]) -> float:
    """In seconds; 0 without a reply."""
    return float(np.quantile([reply.seconds for reply in replies] or [0.0], 0.99))
