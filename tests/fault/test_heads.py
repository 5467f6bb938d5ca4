"""HTTP connections before the application: timeouts, upgrades, and the early 429 of a full queue."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import RunningRouter, eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker
from tests.fault.connections import LIVE, body_of_the_reply, connected, full, posted, refusal, refused
from triptych.router.serving import protocol

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
# With a malformed chunk.
CHUNKED = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"


def wanting(upgrade: bytes, texts: Sequence[str]) -> bytes:
    """A request with the header `upgrade`."""
    return posted([*texts]).replace(b"host: x\r\n", b"host: x\r\n" + upgrade)


@pytest.mark.parametrize("upgrade", [H2C, b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
@pytest.mark.parametrize("cut", ["whole", "before the body", "in the head"])
async def test_upgrade_request_is_ignored(upgrade: bytes, cut: str) -> None:
    async with one_worker() as (router, worker), connected(router) as (reader, writer):
        for number in range(2):
            request = wanting(upgrade, [f"GET /live HTTP/1.1\r\n\r\n{number}"])
            at = {"whole": len(request), "before the body": request.index(b"\r\n\r\n") + 4}.get(cut, 70)
            async with hang_guard():
                writer.write(request[:at])
                await writer.drain()
                # Now the router has read the first piece.
                await router.client.get("/live")
                writer.write(request[at:])
                data = orjson.loads(await body_of_the_reply(reader))["data"]
            assert len(data) == 1
        assert [len(batch.items) for batch in worker.batches] == [1, 1]


@pytest.mark.parametrize("last", [False, True], ids=["kept open", "closed"])
async def test_reply_without_a_body_is_sent(last: bool) -> None:
    close = b"connection: close\r\n" if last else b""
    async with one_worker() as (router, _), connected(router) as (reader, writer), hang_guard():
        writer.write(b"HEAD /live HTTP/1.1\r\nhost: x\r\n%b\r\n" % close)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        if last:
            assert await reader.read() == b""


async def test_upgrade_in_a_pipeline_is_ignored() -> None:
    async with one_worker() as (router, _), connected(router) as (reader, writer):
        writer.write(posted(["one"]) + wanting(H2C, ["two", "two"]) + posted(["three"] * 3))
        async with hang_guard():
            for count in (1, 2, 3):
                assert len(orjson.loads(await body_of_the_reply(reader))["data"]) == count


async def test_many_upgrades_at_once_are_all_answered() -> None:
    async with full() as (router, _), connected(router) as (reader, writer), hang_guard():
        number = 1500
        writer.write(wanting(H2C, ["a"]) * number + LIVE)
        for _ in range(number):
            await refusal(reader)
        assert orjson.loads(await body_of_the_reply(reader)) == {"status": "ok"}


@pytest.mark.parametrize("sent", [b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", b"what is this\r\n\r\n"])
async def test_malformed_request_returns_400(sent: bytes) -> None:
    async with running_router(FakeWorker(port=1), wait=False) as router:
        status, error = await refused(router, sent)
        assert (status, error["code"]) == (400, "HTTP_INVALID")
        expected = {"message": error["detail"], "type": "invalid_request_error", "code": "HTTP_INVALID"}
        assert error["error"] == expected


async def test_endless_head_returns_431() -> None:
    async with (
        running_router(FakeWorker(port=1), wait=False) as router,
        connected(router) as (reader, writer),
    ):
        sent = 0

        async def send() -> None:
            nonlocal sent
            writer.write(b"GET /live HTTP/1.1\r\n")
            while True:
                writer.write(b"x-more: " + b"x" * 1000 + b"\r\n")
                sent += 1000
                await writer.drain()

        sending = asyncio.create_task(send())
        async with hang_guard():
            reply = await reader.readuntil(b"\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 431 ")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        # Socket buffers come on top of the bound.
        assert sent < 20 << 20
        assert (await router.client.get("/live")).status_code == 200


async def test_slow_head_returns_408(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_router(FakeWorker(port=1), wait=False) as router:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
        status, error = await refused(router, b"GET /live HTTP/1.1\r\nhost: ")
        assert (status, error["code"]) == (408, "HTTP_HEAD_TIMEOUT")
        for nothing in (b"", b"\r\n\r\n"):
            async with connected(router) as (reader, writer), hang_guard():
                writer.write(nothing)
                assert await reader.read() == b""


async def test_head_timeout_spares_a_running_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the next head on its connection stalls."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    async with one_worker("held") as (router, worker), connected(router) as (reader, writer):
        request = posted(["one"])
        writer.write(request[:-1])
        await head_timeout(router)
        writer.write(request[-1:] + b"GET /li")
        await worker.until_batches(1)
        await head_timeout(router)
        worker.gate.set()
        async with hang_guard():
            assert len(orjson.loads(await body_of_the_reply(reader))["data"]) == 1
            assert await reader.read() == b""
        await eventually(lambda: worker.active == 0)


async def head_timeout(router: RunningRouter) -> None:
    """Wait until the head timeout of a new, silent connection is over."""
    async with connected(router) as (silent, _), hang_guard():
        assert await silent.read() == b""


async def used(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, refused: bool) -> None:
    """Send a request that the application answers, or with `refused` gets an early 429."""
    if refused:
        writer.write(posted(["a"]))
        await refusal(reader)
    else:
        writer.write(LIVE)
        await body_of_the_reply(reader)


@pytest.mark.parametrize("refused", [False, True])
async def test_idle_connection_is_closed(refused: bool) -> None:
    async with full(keep_alive_seconds=1) as (router, _), connected(router) as (reader, writer), hang_guard():
        await used(reader, writer, refused=refused)
        assert await reader.read() == b""


@pytest.mark.parametrize("refused", [False, True])
async def test_head_timeout_spares_idle_connections(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    async with full(keep_alive_seconds=1000) as (router, _), connected(router) as (reader, writer):
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
        async with hang_guard():
            await used(reader, writer, refused=refused)
            await head_timeout(router)
            await used(reader, writer, refused=refused)


async def test_head_on_idle_connection_has_full_timeout() -> None:
    async with (
        full(keep_alive_seconds=1) as (router, _),
        connected(router) as (reader, writer),
        connected(router) as (idle, idle_writer),
        hang_guard(),
    ):
        await used(reader, writer, refused=True)
        writer.write(LIVE[:10])
        await used(idle, idle_writer, refused=True)
        # The keep-alive time is over now.
        assert await idle.read() == b""
        writer.write(LIVE[10:])
        assert orjson.loads(await body_of_the_reply(reader)) == {"status": "ok"}


@pytest.mark.parametrize("cut", ["whole", "before the body", "in the body"])
async def test_full_queue_returns_429_before_the_body(cut: str) -> None:
    async with full() as (router, worker), connected(router) as (reader, writer), hang_guard():
        id = b"0123456789abcdef" * 2
        # A body that looks like a request.
        request = posted(["GET /live HTTP/1.1\r\n\r\n"]).replace(
            b"host: x", b"host: x\r\nx-request-id: " + id
        )
        body = request.index(b"\r\n\r\n") + 4
        at = {"whole": len(request), "before the body": body, "in the body": body + 9}[cut]
        for _ in range(2):
            writer.write(request[:at])
            headers, error = await refusal(reader)
            writer.write(request[at:])
            assert (error["code"], error["request_id"]) == ("QUEUE_FULL", id.decode())
            assert headers[b"x-request-id"] == id
            assert int(headers[b"retry-after"]) > 0
            assert {b"x-total-time", b"x-queue-time", b"x-inference-time"} < headers.keys()
            assert b"connection" not in headers
        writer.write(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert orjson.loads(await body_of_the_reply(reader)) == {"status": "ok"}
        worker.gate.set()
        await eventually(lambda: not router.fleet.pools["retrieval"].queue.items)
        writer.write(posted(["served"]))
        assert len(orjson.loads(await body_of_the_reply(reader))["data"]) == 1
        page = (await router.client.get("/metrics")).text
        assert 'triptych_router_rejections_total{reason="QUEUE_FULL"} 2.0' in page
        assert 'route="/v1/embeddings",status="429"} 2.0' in page


ORIGIN = "https://app.example.org"


async def test_early_429_has_cors_headers() -> None:
    async with full(cors_origins=[ORIGIN]) as (router, _):
        for origin in (ORIGIN, "https://evil.example.org"):
            reply = await router.ask(["a"], headers={"origin": origin})
            assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
            assert reply.headers.get("access-control-allow-origin") == (ORIGIN if origin == ORIGIN else None)
            assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("origins", "sent", "expected"),
    [
        ([ORIGIN], b"GET / HTTP/1.1\r\norigin: https://app.example.org\r\nx-more: ", ORIGIN.encode()),
        ([ORIGIN], b"GET / HTTP/1.1\r\norigin: https://evil.example.org\r\nx-more: ", None),
        ([ORIGIN], b"what is this\r\n\r\n", None),
        (["*"], b"what is this\r\n\r\n", b"*"),
    ],
)
async def test_protocol_errors_have_cors_headers(
    monkeypatch: pytest.MonkeyPatch, origins: list[str], sent: bytes, expected: bytes | None
) -> None:
    async with running_router(FakeWorker(port=1), wait=False, cors_origins=origins) as router:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
        async with connected(router) as (reader, writer), hang_guard():
            writer.write(sent)
            head = (await reader.read()).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0].split()[1] in (b"400", b"408")
    headers = dict(line.split(b": ", 1) for line in head[1:])
    assert headers.get(b"access-control-allow-origin") == expected
    assert (b"access-control-expose-headers" in headers) == (expected is not None)


@pytest.mark.parametrize("wish", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nconnection: close\r\n"])
async def test_early_429_honours_connection_close(wish: bytes) -> None:
    async with full() as (router, _), connected(router) as (reader, writer), hang_guard():
        writer.write(posted(["a"]).replace(b"HTTP/1.1\r\n", wish))
        headers, _ = await refusal(reader)
        assert headers[b"connection"] == b"close"
        assert await reader.read() == b""


async def test_early_429_to_expect_100_continue_closes() -> None:
    async with (
        full(min_bytes_per_second=0) as (router, _),
        connected(router) as (reader, writer),
        hang_guard(),
    ):
        head = posted(["a"]).partition(b"\r\n\r\n")[0]
        writer.write(head + b"\r\nexpect: 100-continue\r\n\r\n")
        headers, _ = await refusal(reader)
        assert headers[b"connection"] == b"close"
        assert await reader.read() == b""


async def test_early_429_is_read_while_the_body_is_sent() -> None:
    async with full() as (router, _), connected(router) as (reader, writer), hang_guard():
        request = posted(["a" * 1_000_000]).replace(b"host: x", b"host: x\r\nconnection: close")
        writer.write(request[:1000])
        headers, _ = await refusal(reader)
        assert headers[b"connection"] == b"close"
        writer.write(request[1000:])
        await writer.drain()
        assert await reader.read() == b""


async def test_early_429_is_the_only_reply() -> None:
    async with full() as (router, _), connected(router) as (reader, writer), hang_guard():
        writer.write(CHUNKED)
        await refusal(reader)
        assert await reader.read() == b""


async def test_draining_router_closes_after_an_early_429() -> None:
    async with full() as (router, _), connected(router) as (reader, writer), hang_guard():
        router.app.draining = True
        writer.write(posted(["a"]))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.lower().count(b"connection: close") == 1
        assert (await reader.read()).endswith(b"}")


async def test_malformed_body_in_a_pipeline_ends_the_connection() -> None:
    async with (
        one_worker(min_bytes_per_second=0) as (router, _),
        connected(router) as (reader, writer),
        hang_guard(),
    ):
        writer.write(LIVE + CHUNKED)
        assert orjson.loads(await body_of_the_reply(reader)) == {"status": "ok"}
        assert await reader.read() == b""


async def test_early_429_keeps_pipeline_order() -> None:
    async with full() as (router, _), connected(router) as (reader, writer), hang_guard():
        writer.write(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n" + posted(["a"]))
        assert orjson.loads(await body_of_the_reply(reader)) == {"status": "ok"}
        await refusal(reader)


async def test_full_queue_spares_other_requests() -> None:
    async with full() as (router, _):
        for method, path, status in (("GET", "/v1/models", 200), ("GET", "/v1/embeddings", 405)):
            assert (await router.client.request(method, path)).status_code == status
        reply = await router.ask(["a"], headers={"x-request-timeout-seconds": "soon"})
        assert reply.status_code == 422
