"""The 429 that a full queue gives before a request's body is read."""

import asyncio
import re
import socket

import pytest

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import eventually
from tests.fault.connections import (
    CHUNKED,
    LIVE,
    full,
    full_connection,
    no_workers,
    posted,
    refusal,
    refused,
    reply_of,
)

ORIGIN = "https://app.example.org"
REQUEST = posted(["a"])
LARGE_REQUEST = posted(["a" * 1_000_000]).replace(b"host: x", b"host: x\r\nconnection: close")


@pytest.mark.parametrize("cut", ["whole", "before the body", "in the body"])
async def test_full_queue_returns_429_before_the_body(cut: str) -> None:
    async with full_connection() as (router, worker, reader, writer):
        id = b"0123456789abcdef" * 2
        # A body that looks like a request.
        request = posted(["GET /live HTTP/1.1\r\n\r\n"]).replace(
            b"host: x", b"host: x\r\nx-request-id: " + id
        )
        body = request.index(b"\r\n\r\n") + 4
        at = {"whole": len(request), "before the body": body, "in the body": body + 9}[cut]
        for _ in range(2):
            writer.write(request[:at])
            reply = await refusal(reader)
            writer.write(request[at:])
            assert reply.json()["request_id"] == reply.headers["x-request-id"] == id.decode()
            assert int(reply.headers["retry-after"]) > 0
            assert {"x-total-time", "x-queue-time", "x-inference-time"} < reply.headers.keys()
            assert "connection" not in reply.headers
        writer.write(LIVE)
        assert await reply_of(reader) == {"status": "ok"}
        worker.gate.set()
        await eventually(lambda: not router.fleet.pools["retrieval"].queue.items)
        writer.write(posted(["served"]))
        assert len((await reply_of(reader))["data"]) == 1
        page = (await router.client.get("/metrics")).text
        assert 'triptych_router_rejections_total{reason="QUEUE_FULL"} 2.0' in page
        assert 'route="/v1/embeddings",status="429"} 2.0' in page


@pytest.mark.parametrize(
    ("first", "rest", "draining"),
    [
        (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), b"", False),
        (REQUEST.replace(b"host: x", b"connection: close"), b"", False),
        (REQUEST.partition(b"\r\n\r\n")[0] + b"\r\nexpect: 100-continue\r\n\r\n", b"", False),
        # It is read while the body is sent.
        (LARGE_REQUEST[:1000], LARGE_REQUEST[1000:], False),
        (REQUEST, b"", True),
    ],
    ids=["HTTP/1.0", "connection: close", "expect: 100-continue", "large body", "draining"],
)
async def test_last_reply_closes_the_connection(first: bytes, rest: bytes, draining: bool) -> None:
    async with full_connection(min_bytes_per_second=0) as (router, _, reader, writer):
        router.app.draining = draining
        writer.write(first)
        assert (await refusal(reader)).headers["connection"] == "close"
        writer.write(rest)
        await writer.drain()
        assert await reader.read() == b""


async def test_malformed_body_gets_no_second_reply() -> None:
    async with full_connection() as (_, _, reader, writer):
        writer.write(CHUNKED + b"\r\n5\r\nhello\r\nzz\r\n")
        await refusal(reader)
        assert await reader.read() == b""


async def test_pipeline_keeps_its_order() -> None:
    async with full_connection() as (_, _, reader, writer):
        writer.write(LIVE + REQUEST)
        assert await reply_of(reader) == {"status": "ok"}
        await refusal(reader)


async def test_full_queue_spares_other_requests() -> None:
    async with full() as (router, _):
        for method, path, status in (("GET", "/v1/models", 200), ("GET", "/v1/embeddings", 405)):
            assert (await router.client.request(method, path)).status_code == status
        reply = await router.ask(["a"], headers={"x-request-timeout-seconds": "soon"})
        assert reply.status_code == 422


async def test_unread_refusals_stop() -> None:
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
                await loop.sock_sendall(client, REQUEST * sent)
            before, now = -1, 0
            while before != now:
                page = (await router.client.get("/metrics")).text
                counts = re.findall(r'rejections_total{reason="QUEUE_FULL"} (\d+)', page)
                before, now = now, int(*counts)
            assert 0 < now < sent


async def test_refusal_has_cors_headers() -> None:
    async with full(cors_origins=[ORIGIN]) as (router, _):
        for origin in (ORIGIN, "https://evil.example.org"):
            reply = await router.ask(["a"], headers={"origin": origin})
            assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
            assert reply.headers.get("access-control-allow-origin") == (ORIGIN if origin == ORIGIN else None)
            assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("origins", "sent", "expected"),
    [
        ([ORIGIN], b"GET / HTTP/1.1\r\norigin: https://app.example.org\r\n" + b"a:\r\n" * 300, ORIGIN),
        ([ORIGIN], b"GET / HTTP/1.1\r\norigin: https://evil.example.org\r\n" + b"a:\r\n" * 300, None),
        ([ORIGIN], b"what is this\r\n\r\n", None),
        (["*"], b"what is this\r\n\r\n", "*"),
    ],
)
async def test_protocol_errors_have_cors_headers(
    origins: list[str], sent: bytes, expected: str | None
) -> None:
    async with no_workers(cors_origins=origins) as router:
        headers = (await refused(router, sent)).headers
    assert headers.get("access-control-allow-origin") == expected
    assert ("access-control-expose-headers" in headers) == (expected is not None)
