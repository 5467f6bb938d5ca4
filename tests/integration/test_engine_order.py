"""What one engine does first, and that it lets go of what nobody waits for."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.server_processes import Worker, workers
from workers.shared.contract import (
    ENCODE_PATH,
    READY_PATH,
    EncodeRequest,
    Frame,
    FrameReader,
    Item,
    Text,
    Vector,
    encode_request,
)

BULK = 300
# Of these, many steps: the engine has most of the batch still before it when the first vectors come.
ITEMS_A_STEP = 4
# Whatever else the machine does may decide which comes first, or how long it takes, but not each time.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def worker(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    its = {"model": variants / "code", "batch_items": ITEMS_A_STEP}
    with workers(tmp_path_factory.mktemp("order"), its) as [worker]:
        yield worker


def bulk(count: int) -> bytes:
    texts = [Text(f"{number} of a long corpus that is being read", "passage") for number in range(count)]
    return encode_request(EncodeRequest([Item(text) for text in texts], priority=1))


def query() -> bytes:
    return encode_request(EncodeRequest([Item(Text("what is wanted now", "query"))], priority=0))


async def overtake(worker: Worker) -> tuple[int, list[Frame]]:
    """How many bulk vectors had come when a query sent after the first of them was answered; all of them."""
    async with httpx.AsyncClient(timeout=120) as client:
        request = client.build_request("POST", worker.url + ENCODE_PATH, content=bulk(BULK))
        reply = await client.send(request, stream=True)
        reader = FrameReader()
        chunks = reply.aiter_raw()
        frames = list(reader.feed(await anext(chunks)))

        async def rest() -> None:
            async for chunk in chunks:
                frames.extend(reader.feed(chunk))

        reading = asyncio.create_task(rest())
        answer = await client.post(worker.url + ENCODE_PATH, content=query())
        before = len(frames)
        [frame] = FrameReader().feed(answer.content)
        assert isinstance(frame, Vector)
        await reading
        await reply.aclose()
    return before, frames


def test_a_query_overtakes_the_bulk_that_is_in_the_engine(worker: Worker) -> None:
    for _ in range(ATTEMPTS):
        before, frames = asyncio.run(overtake(worker))
        assert len(frames) == BULK
        if before < BULK / 2:
            break
    assert before < BULK / 2


async def leave(worker: Worker) -> float:
    """Seconds for a bulk item that comes after a bulk batch whose caller left, per second for a batch."""
    async with httpx.AsyncClient(base_url=worker.url, timeout=120) as client:

        async def seconds(body: bytes) -> float:
            begin = time.perf_counter()
            (await client.post(ENCODE_PATH, content=body)).raise_for_status()
            return time.perf_counter() - begin

        await seconds(bulk(BULK))
        whole = await seconds(bulk(BULK))
        async with client.stream("POST", ENCODE_PATH, content=bulk(BULK)) as reply:
            await anext(reply.aiter_raw())
        return await seconds(bulk(1)) / whole


def test_the_engine_drops_what_a_caller_that_left_had_asked_for(worker: Worker) -> None:
    for _ in range(ATTEMPTS):
        share = asyncio.run(leave(worker))
        if share < 0.5:
            break
    # Behind the whole batch it would take about as long as that.
    assert share < 0.5


async def beside_a_long_text(worker: Worker, priority: int) -> tuple[int, list[Frame]]:
    """How many queries, one after another, were answered while the engine read a long text; its frames."""
    long = Item(Text("the lighthouse keeper writes " * 3000, "passage"), truncate=True)
    body = encode_request(EncodeRequest([long], priority=priority))
    async with httpx.AsyncClient(base_url=worker.url, timeout=120) as client:
        reading = asyncio.create_task(client.post(ENCODE_PATH, content=body))
        queries = 0
        while not reading.done():
            (await client.post(ENCODE_PATH, content=query())).raise_for_status()
            assert (await client.get(READY_PATH)).status_code == 200
            queries += not reading.done()
        return queries, list(FrameReader().feed(reading.result().content))


@pytest.mark.parametrize("priority", [0, 1])
def test_queries_are_answered_while_a_long_text_is_read(worker: Worker, priority: int) -> None:
    queries, [frame] = asyncio.run(beside_a_long_text(worker, priority))
    assert isinstance(frame, Vector)
    assert frame.tokens > 8192, "it fits into one step, so this has shown nothing"
    # In one step of 8,192 tokens, and all others after it, there is time for one or two.
    assert queries >= 5
