"""Three times what can be done: how much is still done in time, and what becomes of the rest."""

import asyncio

from tqdm import tqdm

from loadtests.bench.cpu import Meter
from loadtests.bench.http import Request, post
from loadtests.bench.load import Stream, closed_loop, open_loop, poisson
from loadtests.bench.measure import SETTLE_SECONDS, Collector, Groups, Scale
from loadtests.bench.results import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Engine
from loadtests.bench.stats import percentile
from loadtests.bench.systems import EMBEDDINGS, our_body, read_floats
from loadtests.bench.texts import Texts
from loadtests.processes import Router

CONCURRENCY, FACTOR = 64, 3
# Texts of 512 tokens are as many as the engine can do; of 20 tokens, three times what the pool can do is more
# than the router itself can take in on the core that is left for it.
SIZES = (512, 20)
DEADLINE_SECONDS = 2.0
# What may wait must be little, or no queue is full within seconds; it must hold the largest request.
LIMITS = {"queue_items": 512, "max_items": 128}
CAPACITIES = {tokens: f"{tokens}-token texts, closed loop, concurrency {CONCURRENCY}" for tokens in SIZES}
OVERLOADS = {tokens: f"{tokens}-token texts, open loop at {FACTOR}x capacity" for tokens in SIZES}
SYSTEM = "(d) router, worker"
GOODPUT, REFUSED, OTHER = "goodput / capacity", "share refused with 429", "neither in time nor refused"
OFFERED = "requests offered a second"
GENERATOR = "load generator's share of the machine"
LATE = "load generator later than due, p99 in ms"
# The first of it fills the queue.
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
    """The capacity for texts of so many tokens, and what becomes of three times that."""
    capacity, overload = Collector(CAPACITIES[tokens], SYSTEM), Collector(OVERLOADS[tokens], SYSTEM)
    seconds = FILL_SECONDS + scale.seconds * SECONDS_FACTOR
    rate = 0.0
    for number in tqdm(range(scale.rounds + 1), desc=OVERLOADS[tokens], unit="round", leave=False):
        count = round(rate * scale.seconds * 2) + 4 * CONCURRENCY
        requests = queries(router, texts.draw(f"capacity {tokens} {number}", count, tokens))
        await asyncio.sleep(SETTLE_SECONDS)
        if not number:
            stream = Stream(router.url, requests, CONCURRENCY)
            rate = (await closed_loop([stream], read_floats)).items_per_second
            continue
        with capacity.metered(groups):
            done = await closed_loop([Stream(router.url, requests, CONCURRENCY)], read_floats)
            capacity.add(done.replies, done.items_per_second)
        rate = done.items_per_second
        moments = poisson(FACTOR * rate, seconds, number)
        requests = queries(router, texts.draw(f"overload {tokens} {number}", len(moments), tokens))
        await asyncio.sleep(SETTLE_SECONDS)
        with overload.metered(groups):
            await one_overload(router, overload, requests, moments, rate, seconds)
    return [capacity.row, overload.row]


async def one_overload(
    router: Router,
    collector: Collector,
    requests: list[Request],
    moments: list[float],
    rate: float,
    seconds: float,
) -> None:
    meter = Meter({})
    replies = await open_loop(router.url, requests, moments)
    spent = meter.read()
    begin = min(reply.due for reply in replies)
    in_time = [reply for reply in replies if reply.good and reply.end - reply.due <= DEADLINE_SECONDS]
    counted = sum(begin + FILL_SECONDS < reply.end <= begin + seconds for reply in in_time)
    goodput = counted / (seconds - FILL_SECONDS)
    refused = sum(reply.status == 429 for reply in replies)
    collector.add(replies, goodput)
    collector.figure(OFFERED, len(replies) / seconds)
    collector.figure(GOODPUT, goodput / rate)
    collector.figure(REFUSED, refused / len(replies))
    collector.figure(OTHER, len(replies) - refused - len(in_time))
    collector.figure(GENERATOR, spent.groups[Meter.GENERATOR] / spent.machine)
    collector.figure(LATE, percentile([(reply.start - reply.due) * 1e3 for reply in replies], 0.99))


def queries(router: Router, texts: list[str]) -> list[Request]:
    headers = {"x-request-timeout-seconds": str(DEADLINE_SECONDS)}
    url = router.url + EMBEDDINGS
    return [
        Request(number, post(url, our_body([text], "retrieval.query", "float"), headers))
        for number, text in enumerate(texts)
    ]


SECTION = Section("Overload: three times the capacity, nano variant", (Engine("worker"),), run)
