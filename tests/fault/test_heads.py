"""HTTP connections before the application: heads, upgrades, pipelines and timeouts."""

import asyncio
import re

import orjson
import pytest

from tests.fakes.clock import skip
from tests.fakes.router import RunningRouter, eventually, one_worker
from tests.fault.connections import (
    CHUNKED,
    HOURS,
    LIVE,
    Later,
    connected,
    full,
    full_connection,
    no_workers,
    one_connection,
    posted,
    refusal,
    refused,
    reply_of,
    until_read,
)
from triptych.router.serving.protocol import HEAD_SECONDS, MAX_HEAD_BYTES, MAX_PIPELINED, Protocol
from triptych.router.serving.turns import Turns

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
WEBSOCKET = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
BODY = b'{"input": ["a"], "task": "retrieval.query"}'
ID = b"0123456789abcdef" * 2
TINY = b"a:\r\n"
INVALID_TARGET = b"GET http://a:x/ HTTP/1.1\r\nhost: x\r\n\r\n"
KEEP_ALIVE_SECONDS = 75


def wanting(upgrade: bytes, texts: list[str]) -> bytes:
    """A request with the header `upgrade`."""
    return posted(texts).replace(b"host: x\r\n", b"host: x\r\n" + upgrade)


@pytest.mark.parametrize("cut", ["whole", "before the body", "in the head"])
async def test_upgrade_request_is_ignored(cut: str) -> None:
    async with one_connection() as (router, worker, reader, writer):
        for number, upgrade in enumerate((H2C, H2C, WEBSOCKET)):
            request = wanting(upgrade, [f"GET /live HTTP/1.1\r\n\r\n{number}"])
            at = {"whole": len(request), "before the body": request.index(b"\r\n\r\n") + 4}.get(cut, 70)
            writer.write(request[:at])
            await until_read(router, writer)
            writer.write(request[at:])
            assert len((await reply_of(reader))["data"]) == 1
        assert [len(batch.items) for batch in worker.batches] == [1, 1, 1]


async def test_many_upgrades_at_once_are_all_answered() -> None:
    async with full_connection() as (_, _, reader, writer):
        writer.write(wanting(H2C, ["a"]) * 1500 + LIVE)
        for _ in range(1500):
            await refusal(reader)
        assert await reply_of(reader) == {"status": "ok"}


@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"], ids=["kept open", "closed"])
async def test_reply_without_a_body_is_sent(close: bytes) -> None:
    async with one_connection() as (_, _, reader, writer):
        writer.write(b"HEAD /live HTTP/1.1\r\nhost: x\r\n%b\r\n" % close)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        if close:
            assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "HTTP_INVALID"),
        (b"what is this\r\n\r\n", 400, "HTTP_INVALID"),
        (b"GET /live HTTP/1.1\r\n" + TINY * 1000, 431, "HTTP_HEAD_TOO_LARGE"),
        (b"GET /live HTTP/1.1\r\nb: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n", 431, "HTTP_HEAD_TOO_LARGE"),
        (CHUNKED + b"\r\n0\r\n" + TINY * 1000, 431, "HTTP_HEAD_TOO_LARGE"),
        (INVALID_TARGET, 400, "HTTP_INVALID"),
    ],
    ids=["CONNECT", "garbage", "many fields", "long field", "many trailers", "target"],
)
async def test_invalid_head_is_refused(sent: bytes, status: int, code: str) -> None:
    async with no_workers() as router:
        reply = await refused(router, sent)
        error = reply.json()
        assert (reply.status_code, error["code"]) == (status, code)
        assert error["error"] == {"message": error["detail"], "type": "invalid_request_error", "code": code}


@pytest.mark.parametrize(
    ("start", "unit"),
    [
        (b"GET /live HTTP/1.1\r\n", b"x-more: " + b"x" * 1000 + b"\r\n"),
        (CHUNKED + b"\r\n0\r\na: ", b"a" * 4096),
        (CHUNKED + b"\r\n1;extension=", b"a" * 4096),
    ],
    ids=["head", "trailer", "chunk extension"],
)
async def test_endless_head_returns_431(start: bytes, unit: bytes) -> None:
    sent = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(start)
        while True:
            writer.write(unit)
            sent += len(unit)
            await writer.drain()

    async with no_workers() as router, connected(router) as (reader, writer):
        sending = asyncio.create_task(send(writer))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        # Socket buffers come on top of the bound.
        assert sent < 20 << 20
        assert (await router.client.get("/live")).status_code == 200


async def test_slow_head_returns_408() -> None:
    async with no_workers() as router:
        for sent, status in ((b"GET /live HTTP/1.1\r\nhost: ", b"408"), (b"", b""), (b"\r\n\r\n", b"")):
            async with connected(router) as (reader, writer):
                writer.write(sent)
                await until_read(router, writer)
                skip(HEAD_SECONDS)
                reply = await reader.read()
                assert reply[9:12] == status
                assert (b"HTTP_HEAD_TIMEOUT" in reply) == bool(status)


async def test_head_timeout_spares_a_running_request() -> None:
    """Also when the next head on its connection stalls."""
    async with one_connection("held", **HOURS) as (router, worker, reader, writer):
        request = posted(["one"])
        writer.write(request[:-1])
        await head_timeout(router, writer)
        writer.write(request[-1:] + b"GET /li")
        await worker.until_batches(1)
        await head_timeout(router, writer)
        worker.gate.set()
        assert len((await reply_of(reader))["data"]) == 1
        assert await reader.read() == b""
        await eventually(lambda: worker.active == 0)


async def head_timeout(router: RunningRouter, writer: asyncio.StreamWriter) -> None:
    """Let the head timeout pass; a new, silent connection shows that it has."""
    async with connected(router) as (silent, _):
        await until_read(router, writer)
        skip(HEAD_SECONDS)
        assert await silent.read() == b""


async def used(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, refused: bool) -> None:
    """Send a request that the application answers, or with `refused` gets an early 429."""
    if refused:
        writer.write(posted(["a"]))
        await refusal(reader)
    else:
        writer.write(LIVE)
        await reply_of(reader)


@pytest.mark.parametrize("refused", [False, True])
async def test_idle_connection_is_kept_for_its_time(refused: bool) -> None:
    """The head timeout, which is shorter, spares it."""
    async with full_connection() as (router, _, reader, writer):
        await used(reader, writer, refused=refused)
        await head_timeout(router, writer)
        await used(reader, writer, refused=refused)
        skip(KEEP_ALIVE_SECONDS)
        assert await reader.read() == b""


async def test_head_on_idle_connection_has_full_timeout() -> None:
    async with (
        full(keep_alive_seconds=10) as (router, _),
        connected(router) as (reader, writer),
        connected(router) as (idle, idle_writer),
    ):
        await used(reader, writer, refused=True)
        writer.write(LIVE[:10])
        await used(idle, idle_writer, refused=True)
        await until_read(router, writer)
        skip(10)
        # The keep-alive time is over now.
        assert await idle.read() == b""
        writer.write(LIVE[10:])
        assert await reply_of(reader) == {"status": "ok"}


@pytest.mark.parametrize(
    "invalid", [CHUNKED + b"\r\n5\r\nhello\r\nzz\r\n", INVALID_TARGET], ids=["body", "head"]
)
async def test_invalid_request_spares_those_before_it(invalid: bytes) -> None:
    async with one_connection(min_bytes_per_second=0) as (_, _, reader, writer):
        writer.write(LIVE * 3 + invalid)
        for _ in range(3):
            assert await reply_of(reader) == {"status": "ok"}
        assert await reader.read() == b""


async def test_answered_request_gets_no_second_reply() -> None:
    async with one_connection() as (_, _, reader, writer):
        writer.write(CHUNKED.replace(b"embeddings", b"other") + b"\r\n5\r\nhello\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        writer.write(b"zz\r\n")
        assert b"HTTP/1.1" not in await reader.read()


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"/embeddings", b"/other", 404),
        (b"host: x", b"x-priority: high", 422),
        (b"host: x", b"content-encoding: br", 415),
    ],
)
async def test_refusal_of_an_expected_body_closes(old: bytes, new: bytes, status: int) -> None:
    """The client may leave the body out, and would send its next request in its place."""
    head = posted(["a"]).partition(b"\r\n\r\n")[0].replace(old, new) + b"\r\nexpect: 100-continue\r\n\r\n"
    async with no_workers() as router:
        assert (await refused(router, head)).status_code == status


async def test_expected_body_keeps_the_connection() -> None:
    async with one_connection() as (_, _, reader, writer):
        request = posted(["a"]).replace(b"host: x", b"expect: 100-continue")
        body = request.index(b"\r\n\r\n") + 4
        for _ in range(2):
            writer.write(request[:body])
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(request[body:])
            assert len((await reply_of(reader))["data"]) == 1


async def test_trailers_are_no_headers() -> None:
    async with one_connection() as (_, _, reader, writer):
        chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
        writer.write(CHUNKED + b"\r\n" + chunk + b"0\r\nx-request-id: " + ID + b"\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        assert ID not in head


async def test_long_pipeline_is_cut() -> None:
    async with no_workers() as router, connected(router) as (reader, writer):
        writer.write(LIVE * 1000)
        replies = re.findall(rb"HTTP/1.1 (\d+) ", await reader.read())
        assert replies == [b"200"] * (MAX_PIPELINED + 1)


async def test_body_may_take_many_turns() -> None:
    text = "word " * 50_000
    body = orjson.dumps({"input": [text], "task": "retrieval.query", "truncate": True})
    async with one_worker() as (router, worker):
        router.app.connections.turns = Turns(0.0)
        async with connected(router) as (reader, writer):
            writer.write(CHUNKED + b"\r\n")
            writer.writelines(b"1\r\n%c\r\n" % byte for byte in body)
            writer.write(b"0\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert [len(batch.items) for batch in worker.batches] == [1]


async def test_request_that_waits_for_its_turn_is_not_idle() -> None:
    async with one_worker() as (router, _):
        router.app.connections.turns = turns = Later()
        async with connected(router) as (reader, writer):
            # The first is on a new connection, the second on one that was idle.
            for _ in range(2):
                writer.write(LIVE)
                await eventually(lambda: turns.waiting)
                skip(max(HEAD_SECONDS, KEEP_ALIVE_SECONDS))
                await asyncio.sleep(0)
                turns.go_on()
                assert await reply_of(reader) == {"status": "ok"}


async def test_client_may_leave_before_its_turn() -> None:
    async with one_worker() as (router, worker):
        router.app.connections.turns = turns = Later()
        async with connected(router) as (_, writer):
            writer.write(posted(["left"]))
            await eventually(lambda: turns.waiting)
            [read] = turns.readers
            protocol: Protocol = read.__self__  # type: ignore[attr-defined]
            before = router.app.connections.number
            protocol.abort()
            await eventually(lambda: router.app.connections.number < before)
            turns.go_on()
        assert not worker.batches
