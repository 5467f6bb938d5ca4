"""Three tasks mixed over three pools: one router of ours against three stock servers."""

from loadtests.bench import systems
from loadtests.bench.measure import Load, side_by_side
from loadtests.bench.results import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Engine
from loadtests.bench.texts import Texts
from workers.shared.contract import POOLS

LOADS = (
    Load("three tasks, 20-token texts, concurrency 48", 48),
    Load("three tasks, 32 texts of 20 tokens a request, concurrency 12", 12, texts=32),
)


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    workers = {pool: servers.worker("nano", pool) for pool in POOLS}
    stocks = {pool: servers.stock("nano", pool) for pool in POOLS}
    texts = Texts(servers.checkpoint("nano"))
    router = servers.router(*((pool, worker.url) for pool, worker in workers.items()))
    try:
        ways = [systems.stock_pools(stocks), systems.routed_pools(router, list(workers.values()))]
        return [row for load in LOADS for row in await side_by_side(load, ways, texts.draw, scale)]
    finally:
        router.kill()


SECTION = Section(
    "Three tasks mixed over three pools, nano variants",
    tuple(Engine(kind, "nano", pool) for kind in ("worker", "stock") for pool in POOLS),
    run,
    quick=False,
)
