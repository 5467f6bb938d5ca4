"""What a connection may do before the application is called, and what it may not."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from router import protocol
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.test_slow_clients import body_of_the_reply, connected, posted

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"


def wanting(upgrade: bytes, texts: Sequence[str]) -> bytes:
    """A request that would rather be of another protocol."""
    return posted([*texts]).replace(b"host: x\r\n", b"host: x\r\n" + upgrade)


async def refused(router: RunningRouter, *pieces: bytes) -> tuple[int, dict[str, str]]:
    """Status and body of what a connection is closed with."""
    async with connected(router) as (reader, writer), asyncio.timeout(20):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), orjson.loads(body)


@pytest.mark.parametrize("upgrade", [H2C, b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
@pytest.mark.parametrize("cut", ["whole", "before the body", "in the head"])
async def test_a_wish_for_another_protocol_is_passed_over(upgrade: bytes, cut: str) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as router, connected(router) as (reader, writer):
        for number in range(2):
            request = wanting(upgrade, [f"GET /live HTTP/1.1\r\n\r\n{number}"])
            at = {"whole": len(request), "before the body": request.index(b"\r\n\r\n") + 4}.get(cut, 70)
            async with asyncio.timeout(20):
                writer.write(request[:at])
                await writer.drain()
                # So that the router gets it in two pieces.
                await router.client.get("/live")
                writer.write(request[at:])
                data = orjson.loads(await body_of_the_reply(reader))["data"]
            assert len(data) == 1
        assert [len(batch.items) for batch in worker.batches] == [1, 1]


async def test_a_wish_in_the_middle_of_a_series_is_passed_over() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as router, connected(router) as (reader, writer):
        writer.write(posted(["one"]) + wanting(H2C, ["two", "two"]) + posted(["three"] * 3))
        async with asyncio.timeout(20):
            for count in (1, 2, 3):
                assert len(orjson.loads(await body_of_the_reply(reader))["data"]) == count


@pytest.mark.parametrize("sent", [b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", b"what is this\r\n\r\n"])
async def test_what_is_no_request_to_this_server_is_told_so(sent: bytes) -> None:
    async with running_router(FakeWorker(port=1), wait=False) as router:
        status, error = await refused(router, sent)
        assert (status, error["code"]) == (400, "HTTP_INVALID")


async def test_a_head_without_end_is_refused() -> None:
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
        async with asyncio.timeout(20):
            reply = await reader.readuntil(b"\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 431 ")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        # What is on its way in the buffers of both kernels comes on top of the bound.
        assert sent < 20 << 20
        assert (await router.client.get("/live")).status_code == 200


async def test_a_head_that_does_not_come_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_router(FakeWorker(port=1), wait=False) as router:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
        status, error = await refused(router, b"GET /live HTTP/1.1\r\nhost: ")
        assert (status, error["code"]) == (408, "HTTP_HEAD_TIMEOUT")
        for nothing in (b"", b"\r\n\r\n"):
            async with connected(router) as (reader, writer), asyncio.timeout(20):
                writer.write(nothing)
                assert await reader.read() == b""


async def test_a_request_that_takes_its_time_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor by the head of the next one that does not come."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    worker = FakeWorker()
    worker.mode = "held"
    async with fake_workers(worker), running_router(worker) as router, connected(router) as (reader, writer):
        request = posted(["one"])
        writer.write(request[:-1])
        await asyncio.sleep(0.8)
        writer.write(request[-1:] + b"GET /li")
        await worker.until_batches(1)
        await asyncio.sleep(0.8)
        worker.gate.set()
        async with asyncio.timeout(20):
            assert len(orjson.loads(await body_of_the_reply(reader))["data"]) == 1
            assert await reader.read() == b""
        await eventually(lambda: worker.active == 0)
