"""Raw connections to a router, and its refusals."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx

from tests.fakes.frames import Mode
from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import RunningRouter, eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker
from triptych.router.serving.turns import Turns

LIVE = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
# Settings that let a test move the clock.
HOURS: dict[str, Any] = {"request_timeout_seconds": 3600, "worker_timeout_seconds": 3600}
# A reply of 20 MB, far more than socket buffers hold.
LARGE = [f"text {number}" for number in range(400)]


@asynccontextmanager
async def connected(
    router: RunningRouter,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the router; the block may not hang."""
    url = router.client.base_url
    async with hang_guard():
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            yield reader, writer
        finally:
            writer.close()


Connected = tuple[RunningRouter, FakeWorker, asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def one_connection(mode: Mode = "healthy", **settings: Any) -> AsyncIterator[Connected]:
    """A raw connection to a router in front of one worker."""
    async with one_worker(mode, **settings) as (router, worker), connected(router) as (reader, writer):
        yield router, worker, reader, writer


@asynccontextmanager
async def full_connection(**settings: Any) -> AsyncIterator[Connected]:
    """A raw connection to a router whose queue has no room, see `full`."""
    async with full(**settings) as (router, worker), connected(router) as (reader, writer):
        yield router, worker, reader, writer


def no_workers(**settings: Any) -> AbstractAsyncContextManager[RunningRouter]:
    """A router whose only worker does not exist."""
    return running_router(FakeWorker(port=1), wait=False, **settings)


async def until_read(router: RunningRouter, writer: asyncio.StreamWriter) -> None:
    """Wait until the router has read what was written to its connections so far."""
    await writer.drain()
    for _ in range(3):
        await router.client.get("/live")


def posted(texts: list[str]) -> bytes:
    body = json.dumps({"input": texts, "task": "retrieval.query"}).encode()
    return b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def response(reader: asyncio.StreamReader) -> httpx.Response:
    """The next reply, which has a length."""
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
    headers = httpx.Headers([(name, value) for name, value in (field.split(b": ", 1) for field in fields)])
    content = await reader.readexactly(int(headers["content-length"]))
    version, status, phrase = line.decode().split(" ", 2)
    assert (version, phrase) == ("HTTP/1.1", HTTPStatus(int(status)).phrase)
    return httpx.Response(int(status), headers=headers, content=content)


async def reply_of(reader: asyncio.StreamReader) -> Any:
    """The body of a 200."""
    reply = await response(reader)
    assert reply.status_code == 200
    return reply.json()


async def refusal(reader: asyncio.StreamReader) -> httpx.Response:
    """A 429."""
    reply = await response(reader)
    assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
    return reply


async def refused(router: RunningRouter, *pieces: bytes) -> httpx.Response:
    """The error that closes a connection."""
    async with connected(router) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        reply = await response(reader)
        assert await reader.read() == b""
    assert reply.headers["connection"] == "close"
    return reply


@asynccontextmanager
async def full(**settings: Any) -> AsyncIterator[tuple[RunningRouter, FakeWorker]]:
    """A router whose queue has no room until the worker's gate is opened."""
    small = {"lanes": 1, "batch_items": 1, "max_items": 1, "max_pdf_pages": 1, "queue_items": 1}
    async with one_worker("held", **small, **HOURS, **settings) as (router, worker):
        asked = [asyncio.create_task(router.ask(["in the lane"]))]
        await worker.until_batches(1)
        asked.append(asyncio.create_task(router.ask(["in the queue"])))
        await eventually(lambda: router.fleet.pools["retrieval"].queue.items == 1)
        yield router, worker
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        await router.until_idle()


class Later(Turns):
    """Lets all connections wait until `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Callable[[], None]] = []

    def take(self, read: Callable[[], None], *, in_body: bool) -> bool:
        self.readers.append(read)
        return False

    @property
    def waiting(self) -> int:
        return len(self.readers)

    def go_on(self) -> None:
        for _ in range(len(self.readers)):
            self.readers.pop(0)()
