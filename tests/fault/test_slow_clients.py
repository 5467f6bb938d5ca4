"""Clients that send or read slowly do not delay others."""

import asyncio

import orjson

from tests.fakes.router import RunningRouter, one_worker
from tests.fault.connections import LARGE, body_of_the_reply, connected, posted


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
