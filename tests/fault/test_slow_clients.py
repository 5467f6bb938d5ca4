"""Clients that send or read slowly do not delay others."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from tests.fakes.router import RunningRouter, one_worker

# A reply of 20 MB, far more than socket buffers hold.
LARGE = [f"text {number}" for number in range(400)]


@asynccontextmanager
async def connected(
    router: RunningRouter,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the router."""
    url = router.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def posted(texts: list[str]) -> bytes:
    body = json.dumps({"input": texts, "task": "retrieval.query"}).encode()
    return b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def body_of_the_reply(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"/1.1 200 " in head
    [length] = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
    return await reader.readexactly(int(length))


async def others_are_answered(router: RunningRouter) -> None:
    replies = await asyncio.gather(*(router.ask([f"other {number}"]) for number in range(50)))
    assert {reply.status_code for reply in replies} == {200}


async def test_slow_reader_delays_no_other_client() -> None:
    async with one_worker() as (router, _), connected(router) as (reader, writer):
        writer.write(posted(LARGE))
        # The reply has begun; nothing more is read until others are answered.
        assert await reader.read(1) == b"H"
        await others_are_answered(router)
        body = await body_of_the_reply(reader)
        assert len(body) > 10_000_000
        assert [entry["index"] for entry in orjson.loads(body)["data"]] == list(range(len(LARGE)))
        await router.until_idle()


async def test_client_may_leave_during_a_reply() -> None:
    async with one_worker() as (router, _):
        async with connected(router) as (reader, writer):
            writer.write(posted(LARGE))
            assert await reader.read(1) == b"H"
            writer.transport.abort()
        await others_are_answered(router)
        await router.until_idle()


async def test_slow_sender_delays_no_other_client() -> None:
    async with one_worker() as (router, _), connected(router) as (reader, writer):
        request = posted(["slowly"])
        for part in (request[:20], request[20:-5]):
            writer.write(part)
            await writer.drain()
            await others_are_answered(router)
        writer.write(request[-5:])
        assert len(orjson.loads(await body_of_the_reply(reader))["data"]) == 1
        await router.until_idle()
