"""Three times the capacity: the share of it that is still served in time, and what happens to the rest."""

import asyncio

from tqdm import tqdm

from loadtests.bench.loops import Request, closed_loop, open_loop, poisson
from loadtests.bench.measure import SETTLE_SECONDS, Collector, Groups, Scale
from loadtests.bench.rows import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Engine
from loadtests.bench.systems import ask_router, read_floats
from loadtests.bench.texts import Texts
from loadtests.processes import Router

CONCURRENCY, FACTOR = 64, 3
# With 512 tokens the engine is the limit. With 20 the router's own core cannot take in all requests.
SIZES = (512, 20)
DEADLINE_SECONDS = 2.0
# A small queue is full within seconds. It must hold the largest request.
LIMITS = {"queue_items": 512, "max_items": 128}
CAPACITIES = {tokens: f"{tokens}-token texts, closed loop, concurrency {CONCURRENCY}" for tokens in SIZES}
OVERLOADS = {tokens: f"{tokens}-token texts, open loop at {FACTOR}x capacity" for tokens in SIZES}
SYSTEM = "(d) router, worker"
GOODPUT, REFUSED, OTHER = "goodput / capacity", "share refused with 429", "neither in time nor refused"
# The queue fills in the first second, which does not count.
SECONDS_FACTOR, FILL_SECONDS = 3, 1.0


async def run(setup: Setup) -> list[Row]:
    worker = setup.servers.worker()
    router = setup.servers.router(("retrieval", worker.url), **LIMITS)
    groups: Groups = {"router": [router], "worker": [worker]}
    texts = Texts(setup.servers.checkpoint("nano"))
    try:
        return [row for tokens in SIZES for row in await of_size(tokens, router, groups, texts, setup.scale)]
    finally:
        router.kill()


async def of_size(tokens: int, router: Router, groups: Groups, texts: Texts, scale: Scale) -> list[Row]:
    """The capacity for texts of `tokens` tokens, and the outcome of three times as much."""
    collectors: list[Collector] = []
    seconds = FILL_SECONDS + scale.seconds * SECONDS_FACTOR
    rate = 0.0
    for number in tqdm(range(scale.rounds + 1), desc=OVERLOADS[tokens], unit="round", leave=False):
        if number < 2:
            # The first round is a warm-up.
            collectors = [Collector(CAPACITIES[tokens], SYSTEM), Collector(OVERLOADS[tokens], SYSTEM)]
        capacity, overload = collectors
        count = round(rate * scale.seconds * 2) + 4 * CONCURRENCY
        requests = queries(router, texts.draw(f"capacity {tokens} {number}", count, tokens))
        await asyncio.sleep(SETTLE_SECONDS)
        with capacity.metered(groups):
            done = await closed_loop(router.url, requests, CONCURRENCY, read_floats)
            capacity.add(done.replies, done.items_per_second)
        rate = done.items_per_second
        if number:
            moments = poisson(FACTOR * rate, seconds, number)
            requests = queries(router, texts.draw(f"overload {tokens} {number}", len(moments), tokens))
            await asyncio.sleep(SETTLE_SECONDS)
            with overload.metered(groups):
                await one_overload(router, overload, requests, moments, rate, seconds)
    return [collector.row for collector in collectors]


async def one_overload(
    router: Router,
    collector: Collector,
    requests: list[Request],
    moments: list[float],
    rate: float,
    seconds: float,
) -> None:
    replies = await open_loop(router.url, requests, moments)
    begin = min(reply.due for reply in replies)
    in_time = [reply for reply in replies if reply.good and reply.end - reply.due <= DEADLINE_SECONDS]
    counted = sum(begin + FILL_SECONDS < reply.end <= begin + seconds for reply in in_time)
    goodput = counted / (seconds - FILL_SECONDS)
    refused = sum(reply.status == 429 for reply in replies)
    collector.add(replies, goodput)
    collector.figure(GOODPUT, goodput / rate)
    collector.figure(REFUSED, refused / len(replies))
    collector.figure(OTHER, len(replies) - refused - len(in_time))


def queries(router: Router, texts: list[str]) -> list[Request]:
    headers = {"x-request-timeout-seconds": str(DEADLINE_SECONDS)}
    return [Request(number, ask_router(router, [text], headers=headers)) for number, text in enumerate(texts)]


SECTION = Section("Overload: three times the capacity, nano variant", (Engine("worker"),), run)
