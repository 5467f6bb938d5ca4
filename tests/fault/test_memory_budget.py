"""Bounded memory, connections and rates: greedy, stalled, silent and broken clients."""

import asyncio
import base64
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tests.fakes.clock import pass_until
from tests.fakes.frames import Mode
from tests.fakes.router import RunningRouter, eventually, one_worker
from tests.fault.connections import HOURS, LARGE, connected, one_connection, posted, reply_of
from tests.unit.router.pdfs import coloured_pdf
from triptych.router.items import Item, Job

MIB = 1 << 20
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n"
MULTI = {"return_multivector": True}
LONG = "word " * 4000


async def until_nothing_is_held(router: RunningRouter) -> None:
    await router.until_idle()
    await eventually(lambda: router.app.budget.used == 0)


async def counted(router: RunningRouter, reason: str) -> bool:
    page = (await router.client.get("/metrics")).text
    return f'closed_connections_total{{reason="{reason}"}} 1.0' in page


@pytest.mark.parametrize("mode", ["healthy", "error", "rejecting"])
async def test_every_reply_releases_its_memory(mode: Mode) -> None:
    wishes: list[dict[str, Any]] = [{}, MULTI, {"dimensions": 128}, {"input": 5}]
    async with one_worker(mode) as (router, _):
        for wish in wishes:
            await router.post(**{"input": ["a", LONG], **wish})
            await until_nothing_is_held(router)


def items_in_memory() -> int:
    return sum(isinstance(each, Item | Job) for each in gc.get_objects())


@pytest.mark.parametrize("space", ["0" * 16, "other"])
async def test_items_are_freed_at_once(space: str) -> None:
    """Reference cycles would keep them until the next garbage collection."""
    async with one_worker() as (router, _):
        gc.collect()
        gc.disable()
        try:
            before = items_in_memory()
            await router.post({"x-require-vector-space": space}, input=["a", LONG])
            await until_nothing_is_held(router)
            assert items_in_memory() == before
        finally:
            gc.enable()


async def test_stalled_bodies_are_within_the_budget() -> None:
    async with one_worker(memory_bytes=4 * MIB) as (router, _):
        async with connected(router) as (_, one), connected(router) as (_, two):
            for writer in (one, two):
                writer.write(HEAD + b"content-length: 4000000\r\n\r\n" + b" " * 2_000_000)
            await eventually(lambda: router.app.budget.used == 4_000_000)
            reply = await router.ask(["a" * MIB])
            assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
            assert int(reply.headers["retry-after"]) > 0
            assert (await router.ask(["small"])).status_code == 200
        await until_nothing_is_held(router)
        assert (await router.ask(["a" * 10_000])).status_code == 200


@pytest.mark.parametrize(
    ("mebibytes", "body"),
    [
        (4, {"input": ["a" * 3 * MIB]}),
        (4, {"input": [LONG] * 40, **MULTI}),
        (4, {"input": ["a"] * 300}),
        # Its pages count, not its bytes.
        (1, {"input": {"pdf": base64.b64encode(coloured_pdf(100)).decode()}, "dimensions": 128}),
    ],
    ids=["body", "multi-vectors", "vectors", "pages of a PDF"],
)
async def test_request_beyond_the_budget_returns_413(mebibytes: int, body: dict[str, object]) -> None:
    async with one_worker(memory_bytes=mebibytes * MIB) as (router, worker):
        reply = await router.post(**body)  # type: ignore[arg-type]
        assert (reply.status_code, reply.json()["code"]) == (413, "INPUT_TOO_LARGE")
        assert not worker.batches
        await until_nothing_is_held(router)


async def test_waiting_items_and_replies_are_counted() -> None:
    async with one_worker("held", memory_bytes=4 * MIB, lanes=1) as (router, worker):
        asked = asyncio.create_task(router.ask(["held"] * 100))
        await worker.until_batches(1)
        reply = await router.ask(["second"] * 100)
        assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
        worker.gate.set()
        assert (await asked).status_code == 200
        await until_nothing_is_held(router)


async def test_large_multivectors_are_streamed() -> None:
    async with one_worker() as (router, _):
        large = await router.post(input=[LONG, "small"], **MULTI)
        assert large.headers["transfer-encoding"] == "chunked"
        data = large.json()["data"]
        assert [len(entry["embeddings"]) for entry in data] == [5001, 2]
        small = await router.post(input=["small"], **MULTI)
        assert int(small.headers["content-length"]) == len(small.content)
        assert small.json()["data"][0]["embeddings"] == data[1]["embeddings"]
        assert small.headers.keys() - {"content-length"} == large.headers.keys() - {"transfer-encoding"}
        await until_nothing_is_held(router)


@pytest.mark.parametrize("memory", [None, 4 * MIB])
async def test_http_1_0_gets_a_length(memory: int | None) -> None:
    """So the whole reply is held, which does not fit into a small budget."""
    async with one_connection(memory_bytes=memory) as (router, _, reader, writer):
        assert (await router.post(input=[LONG], **MULTI)).status_code == 200
        writer.write(multi(1).replace(b"HTTP/1.1", b"HTTP/1.0"))
        if memory is None:
            [entry] = (await reply_of(reader))["data"]
            assert len(entry["embeddings"]) == 5001
        else:
            assert b" 413 " in await reader.readline()
            await until_nothing_is_held(router)


@asynccontextmanager
async def reading_nothing(router: RunningRouter, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A client whose reply has begun."""
    async with connected(router) as (reader, writer):
        writer.write(request)
        assert await reader.read(1) == b"H"
        yield reader


def multi(count: int = 10) -> bytes:
    body = orjson.dumps({"input": [LONG] * count, "task": "retrieval.query", **MULTI})
    return HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("request_of", [multi, lambda: posted(LARGE)])
async def test_client_that_never_reads_is_closed(request_of: Callable[[], bytes]) -> None:
    async with one_worker(request_timeout_seconds=3600) as (router, _), reading_nothing(router, request_of()):
        assert (await router.ask(["meanwhile"])).status_code == 200
        await pass_until(lambda: router.app.budget.used == 0)
        await router.until_idle()
        assert await counted(router, "too_slow")


async def test_leaving_during_a_stream_frees_it() -> None:
    async with one_worker() as (router, _):
        async with reading_nothing(router, multi()):
            assert router.app.budget.used > 0
        await until_nothing_is_held(router)


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_stalled_body_is_closed(framing: bytes) -> None:
    async with one_connection() as (router, _, reader, writer):
        writer.write(HEAD + framing + b"\r\n\r\n5\r\n")
        await pass_until(reader.at_eof)
        assert await reader.read() == b""
        assert await counted(router, "too_slow")
        await until_nothing_is_held(router)


async def test_waiting_for_a_worker_is_not_slow() -> None:
    async with one_connection("held", **HOURS) as (router, worker, reader, writer):
        writer.write(posted(["a"]))
        await worker.until_batches(1)
        async with connected(router) as (stalled, stalled_writer):
            stalled_writer.write(HEAD + b"content-length: 100\r\n\r\n{")
            await pass_until(stalled.at_eof)
        worker.gate.set()
        assert len((await reply_of(reader))["data"]) == 1


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
async def test_connection_over_the_limit_gets_503(limit: str) -> None:
    # The test's client has one.
    async with one_worker(**{limit: 2}) as (router, _):
        async with connected(router), connected(router) as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: router.app.connections.number == 1)
        async with connected(router) as (reader, writer):
            writer.write(posted(["a"]))
            assert len((await reply_of(reader))["data"]) == 1


async def test_leaving_after_garbage_is_noticed() -> None:
    async with one_worker("held") as (router, worker):
        async with connected(router) as (_, writer):
            writer.write(posted(["a"]) + b"garbage\r\n\r\n")
            await worker.until_batches(1)
        await worker.until_left(1)
        await until_nothing_is_held(router)
