"""Which requests the engine works on first, and that it drops those of a caller that has left.

The engine is paused while requests are sent, so that their order does not depend on the machine.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.engine_workers import Worker
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.integration.conftest import BATCH_TOKENS, ITEMS_PER_STEP
from tests.integration.engine_pause import PREPARED, count, engine_pid, paused, until_counted
from triptych.workers.shared import contract
from triptych.workers.shared.contract import EncodeRequest, FrameReader, Item, Text, Vector

# So many steps that the engine is still at work when it is paused.
BULK = 1500
QUERIES = 5
STEPS = "triptych_worker_engine_steps_total"


@pytest.fixture
def engine(pools: dict[str, Worker]) -> int:
    return engine_pid(pools["code"])


@pytest.fixture
async def client(pools: dict[str, Worker]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=pools["code"].url, timeout=GUARD_SECONDS) as client:
        yield client


def bulk(count: int) -> bytes:
    texts = [Text(f"{number} of a long corpus", "passage") for number in range(count)]
    return contract.encode_request(EncodeRequest([Item(text) for text in texts], priority=1))


def query() -> bytes:
    return contract.encode_request(EncodeRequest([Item(Text("an urgent query", "query"))], priority=0))


async def given(client: httpx.AsyncClient, body: bytes) -> "asyncio.Task[httpx.Response]":
    """The reply to a batch that the worker has given to its engine."""
    batches = await count(client, PREPARED)
    asked = asyncio.create_task(client.post(contract.ENCODE_PATH, content=body))
    await until_counted(client, batches + 1, PREPARED)
    return asked


async def test_query_overtakes_bulk(client: httpx.AsyncClient, engine: int) -> None:
    with paused(engine):
        reading = await given(client, bulk(BULK))
        asked = await given(client, query())
    [answer] = FrameReader().feed((await asked).content)
    assert not reading.done(), "the query waited for the bulk"
    assert isinstance(answer, Vector)
    assert len(list(FrameReader().feed((await reading).content))) == BULK


async def test_batch_of_a_gone_caller_is_dropped(client: httpx.AsyncClient, engine: int) -> None:
    abandoned = {"name": "triptych_worker_items_total", "outcome": "abandoned"}
    before = await count(client, **abandoned)
    async with client.stream("POST", contract.ENCODE_PATH, content=bulk(BULK)) as reply:
        await anext(reply.aiter_raw())
        with paused(engine):
            steps = await count(client, STEPS)
            await reply.aclose()
            await until_counted(client, before + 1, **abandoned)
    (await client.post(contract.ENCODE_PATH, content=bulk(1))).raise_for_status()
    assert await count(client, STEPS) - steps < BULK / ITEMS_PER_STEP / 2


@pytest.mark.parametrize("priority", [0, 1])
async def test_long_text_delays_no_query(client: httpx.AsyncClient, engine: int, priority: int) -> None:
    long = Item(Text("the lighthouse keeper writes " * 3000, "passage"), truncate=True)
    steps = await count(client, STEPS)
    reading = await given(client, contract.encode_request(EncodeRequest([long], priority=priority)))
    await until_counted(client, steps + 1, STEPS)
    with paused(engine):
        queries = [await given(client, query()) for _ in range(QUERIES)]
        assert (await client.get(contract.READY_PATH)).status_code == 200
    ended: list[object] = []
    for asked in (reading, *queries):
        asked.add_done_callback(ended.append)
    for reply in await asyncio.gather(*queries, reading):
        reply.raise_for_status()
    assert ended[-1] is reading, "the queries waited for the long text"
    [frame] = FrameReader().feed((await reading).content)
    assert isinstance(frame, Vector)
    assert frame.tokens > 8 * BATCH_TOKENS, "it fits into too few steps, so this has shown nothing"
