"""In-engine pooling against the published recipe, which sends every token's hidden state to the client."""

from functools import partial

from loadtests.bench import systems
from loadtests.bench.measure import Load, side_by_side
from loadtests.bench.rows import Row
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Engine, Size
from loadtests.bench.texts import Texts
from workers.checkpoints.variant import read_variant

NANO_LOADS = (
    Load("20-token texts against the recipe, concurrency 16", 16),
    Load("512-token texts against the recipe, concurrency 16", 16, tokens=512),
)
TINY_LOADS = (Load("512-token texts against the recipe, tiny variant, concurrency 4", 4, tokens=512),)


async def run(setup: Setup, size: Size, loads: tuple[Load, ...]) -> list[Row]:
    servers, scale = setup
    worker, token_level = servers.worker(size), servers.token_level(size)
    checkpoint = servers.checkpoint(size)
    texts, dimensions = Texts(checkpoint), read_variant(checkpoint).dimensions
    router = servers.router(("retrieval", worker.url))
    try:
        ways = [
            systems.worker(worker),
            systems.routed(router, worker),
            systems.recipe(token_level, "float", dimensions),
            systems.recipe(token_level, "base64", dimensions),
        ]
        return [row for load in loads for row in await side_by_side(load, ways, texts.draw, scale)]
    finally:
        router.kill()


NANO = Section(
    "Against the published recipe, nano variant",
    (Engine("worker"), Engine("token-level stock")),
    partial(run, size="nano", loads=NANO_LOADS),
    quick=False,
)
TINY = Section(
    "Against the published recipe, tiny variant (2,048 dimensions)",
    (Engine("worker", "tiny"), Engine("token-level stock", "tiny")),
    partial(run, size="tiny", loads=TINY_LOADS),
)
