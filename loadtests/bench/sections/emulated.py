"""Whether worker and router keep a fast card busy: a real worker, whose engine takes the time of a card."""

from triptych.loadtests.bench import systems
from triptych.loadtests.bench.measure import Bench, Result
from triptych.loadtests.bench.sections.compared import RETRIEVAL, Load, side_by_side
from triptych.loadtests.bench.servers import CARD_SECONDS, CARD_TOKENS, STEP_ITEMS, STEP_TOKENS, Engine
from triptych.loadtests.bench.systems import System

# The nano and the tiny checkpoint have the same tokenizer as the model: "Query: " is three tokens.
PREFIX_TOKENS = 3
# More than two full steps, so that the card never waits for a client.
LOADS = (
    Load("512-token texts, concurrency 64", 64, tokens=512 - PREFIX_TOKENS),
    Load("20-token texts, concurrency 768", 768, tokens=20 - PREFIX_TOKENS),
)
SHARE = "share of the card's ideal, %"
# A full step takes a tenth of a second, and a round begins with smaller ones.
SECONDS_FACTOR = 6


def ideal(tokens: int) -> float:
    """Texts a second of a card whose steps are full and follow each other without a gap."""
    items = min(STEP_TOKENS / tokens, STEP_ITEMS)
    return items / (CARD_SECONDS + items * tokens / CARD_TOKENS)


async def run(bench: Bench, result: Result) -> None:
    servers = bench.servers
    [worker] = await servers.need(Engine("emulated", "tiny"))
    compared: list[System] = [systems.worker(worker)]
    for processes in (1, 2):
        router = await servers.router((RETRIEVAL, worker), processes=processes)
        routed = systems.routed(router, worker, "base64")
        compared.append(routed._replace(name=f"{routed.name}, router processes: {processes}"))
    texts = await servers.texts("tiny")
    scale = bench.scale._replace(seconds=bench.scale.seconds * SECONDS_FACTOR, settle_seconds=0.1)
    for load in LOADS:
        rows = await side_by_side(scale, load, compared, texts)
        best = ideal(load.tokens + PREFIX_TOKENS)
        for row in rows:
            row.figures[SHARE] = [100 * rate / best for rate in row.items_per_second]
        result.rows += rows
