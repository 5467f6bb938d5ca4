"""Items a second by system and load: short texts, 32 a request, base64, long texts."""

from loadtests.bench import systems
from loadtests.bench.measure import Load, side_by_side
from loadtests.bench.rows import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Engine
from loadtests.bench.texts import Texts

SHORT = {
    concurrency: Load(f"20-token texts, concurrency {concurrency}", concurrency)
    for concurrency in (1, 16, 64, 256)
}
LISTS = Load("32 texts of 20 tokens a request, concurrency 8", 8, texts=32)
BASE64 = Load("20-token texts as base64, concurrency 64", 64)
LONG = Load("512-token texts, concurrency 16", 16, tokens=512)
QUICK = (SHORT[1], SHORT[16], SHORT[64], LISTS)


async def run(setup: Setup) -> list[Row]:
    servers, scale = setup
    stock, worker = servers.stock(), servers.worker()
    texts = Texts(servers.checkpoint("nano"))
    router = servers.router(("retrieval", worker.url))
    vllm_router = systems.VllmRouter(servers.log("vllm-router"), [stock])
    try:
        vllm_router.wait_until_ready()
        floats = [
            systems.stock(stock),
            systems.stock_routed(vllm_router, stock),
            systems.worker(worker),
            systems.routed(router, worker),
        ]
        base64s = [
            systems.stock(stock, "base64"),
            systems.stock_routed(vllm_router, stock, "base64"),
            systems.routed(router, worker, "base64"),
        ]
        rows = []
        for load in QUICK if scale.quick else (*SHORT.values(), LISTS, LONG, BASE64):
            rows += await side_by_side(load, base64s if load is BASE64 else floats, texts.draw, scale)
        return rows
    finally:
        vllm_router.kill()
        router.kill()


SECTION = Section("Throughput, one pool, nano variant", (Engine("stock"), Engine("worker")), run)
