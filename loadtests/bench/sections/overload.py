"""Three times the capacity: the share of it that is still served in time, and what happens to the rest."""

from triptych.loadtests.bench.loops import Request, Round, closed_loop, open_loop, poisson
from triptych.loadtests.bench.measure import Result, Sending, Trial, interleaved
from triptych.loadtests.bench.sections import Bench, Scale, Section
from triptych.loadtests.bench.servers import Engine
from triptych.loadtests.bench.systems import ask_router
from triptych.loadtests.bench.texts import Texts
from triptych.loadtests.server_processes import Server

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


async def run(bench: Bench, result: Result) -> None:
    servers, scale = bench.servers, bench.scale
    [worker] = await servers.need(Engine())
    router = await servers.router(("retrieval", worker), **LIMITS)
    texts = Texts(await servers.variant())
    for tokens in SIZES:
        result.rows += await interleaved(trials(tokens, router, worker, texts, scale), scale.rounds)


def trials(tokens: int, router: Server, worker: Server, texts: Texts, scale: Scale) -> list[Trial]:
    """The capacity for texts of `tokens` tokens, and the outcome of three times as much."""
    seconds = FILL_SECONDS + scale.seconds * SECONDS_FACTOR
    capacity = 0.0

    def requests(seed: str, count: int) -> list[Request]:
        headers = {"x-request-timeout-seconds": str(DEADLINE_SECONDS)}
        lists = texts.lists(f"{seed} {tokens}", count, 1, tokens)
        return [
            Request(place, ask_router(router.url, its, headers=headers)) for place, its in enumerate(lists)
        ]

    async def fill(wanted: list[Request]) -> Round:
        nonlocal capacity
        done = await closed_loop(router.url, wanted, CONCURRENCY)
        capacity = done.items_per_second
        return done

    def closed(number: int, rate: float) -> Sending:
        return fill(requests(f"capacity {number}", round(rate * scale.seconds * 2) + 4 * CONCURRENCY))

    def open_(number: int, rate: float) -> Sending:
        moments = poisson(FACTOR * capacity, seconds, number)
        return overload(router.url, requests(f"overload {number}", len(moments)), moments, capacity, seconds)

    groups = {"router": router, "worker": worker}
    loads = {CAPACITIES[tokens]: closed, OVERLOADS[tokens]: open_}
    return [Trial(load, SYSTEM, groups, prepare) for load, prepare in loads.items()]


async def overload(
    url: str, requests: list[Request], moments: list[float], capacity: float, seconds: float
) -> Round:
    """Replies within the deadline count; their rate is the goodput."""
    replies = await open_loop(url, requests, moments)
    begin = replies[0].due
    in_time = [reply for reply in replies if reply.good and reply.end - reply.due <= DEADLINE_SECONDS]
    counted = sum(begin + FILL_SECONDS < reply.end <= begin + seconds for reply in in_time)
    goodput = counted / (seconds - FILL_SECONDS)
    refused = sum(reply.status == 429 for reply in replies)
    figures = {
        GOODPUT: goodput / capacity,
        REFUSED: refused / len(replies),
        OTHER: len(replies) - refused - len(in_time),
    }
    return Round(replies, goodput, figures)


SECTION = Section("Overload: three times the capacity, nano variant", run)
