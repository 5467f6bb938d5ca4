"""Heads, trailers and pipelines that would take memory or time from other connections."""

import asyncio
import re
import socket

import orjson
import pytest

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import one_worker, running_router
from tests.fakes.worker import FakeWorker
from tests.fault.connections import LIVE, connected, full, posted, refused
from triptych.router.serving import protocol

CHUNKED = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
BODY = b'{"input": ["a"], "task": "retrieval.query"}'
ID = b"0123456789abcdef" * 2
TINY = b"a:\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /live HTTP/1.1\r\n" + TINY * 1000,
        b"GET /live HTTP/1.1\r\nb: " + b"b" * protocol.MAX_HEAD_BYTES + b"\r\n\r\n",
        CHUNKED + b"\r\n0\r\n" + TINY * 1000,
    ],
)
async def test_excess_of_fields_returns_431(sent: bytes) -> None:
    async with running_router(FakeWorker(port=1), wait=False) as router:
        status, error = await refused(router, sent)
        assert (status, error["code"]) == (431, "HTTP_HEAD_TOO_LARGE")


@pytest.mark.parametrize("start", [b"0\r\na: ", b"1;extension="])
async def test_endless_framing_closes_connection(start: bytes) -> None:
    async with (
        running_router(FakeWorker(port=1), wait=False) as router,
        connected(router) as (reader, writer),
        hang_guard(),
    ):
        writer.write(CHUNKED + b"\r\n" + start)

        async def send() -> None:
            while True:
                writer.write(b"a" * 4096)
                await writer.drain()

        sending = asyncio.create_task(send())
        assert b" 431 " in await reader.readline()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_trailers_are_no_headers() -> None:
    async with one_worker() as (router, _), connected(router) as (reader, writer), hang_guard():
        chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
        writer.write(CHUNKED + b"\r\n" + chunk + b"0\r\nx-request-id: " + ID + b"\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        assert ID not in head


async def test_long_pipeline_is_cut() -> None:
    async with running_router(FakeWorker(port=1), wait=False) as router, hang_guard():
        async with connected(router) as (reader, writer):
            writer.write(LIVE * 1000)
            replies = re.findall(rb"HTTP/1.1 (\d+) ", await reader.read())
        assert replies == [b"200"] * (protocol.MAX_PIPELINED + 1)


async def test_refusals_that_nobody_reads_stop() -> None:
    """An early 429 does not wait until the client reads, so it must not be sent when others are unread."""
    sent = 20_000
    async with full() as (router, _):
        url = router.client.base_url
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            async with hang_guard():
                await loop.sock_connect(client, (url.host, url.port or 80))
                await loop.sock_sendall(client, posted(["a"]) * sent)
            before, now = -1, 0
            while before != now:
                page = (await router.client.get("/metrics")).text
                counts = re.findall(r'rejections_total{reason="QUEUE_FULL"} (\d+)', page)
                before, now = now, int(*counts)
            assert 0 < now < sent


async def test_tiny_chunks_give_others_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading pauses after a long parse, and goes on."""
    monkeypatch.setattr(protocol, "TURN_SECONDS", 0.0)
    text = "word " * 50_000
    body = orjson.dumps({"input": [text], "task": "retrieval.query", "truncate": True})
    async with one_worker() as (router, worker), connected(router) as (reader, writer), hang_guard():
        writer.write(CHUNKED + b"\r\n")
        writer.writelines(b"1\r\n%c\r\n" % byte for byte in body)
        writer.write(b"0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert [len(batch.items) for batch in worker.batches] == [1]
