"""Responses that are mostly framing are cut off early; ordinary ones are not."""

import asyncio
import contextlib

import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.site import site
from tests.unit.router.fetching import LIMIT, LOOPBACK
from triptych.router.media.fetch import Fetcher
from triptych.router.media.response_guard import FRAMING_BYTES, STEP_BYTES

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "informational": (b"", b"HTTP/1.1 100 \r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "small chunks": (CHUNKED, b"1\r\na\r\n"),
    "chunk extension": (CHUNKED + b"1;", b"a"),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\n", b"a: b\r\n"),
    "second response": (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_flood_of_framing_is_cut_off(kind: str) -> None:
    head, unit = FLOODS[kind]
    taken = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            while taken < 8 * LIMIT:
                writer.write(unit * 100)
                await writer.drain()
                taken = sum(counted)
        writer.close()

    counted: list[int] = []
    received = ResponseHandler.data_received

    def count(self: ResponseHandler, data: bytes) -> None:
        counted.append(len(data))
        received(self, data)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResponseHandler, "data_received", count)
        async with server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
            await asyncio.gather(fetcher.fetch(url, LIMIT, "f"), return_exceptions=True)
    assert sum(counted) <= FRAMING_BYTES + 2 * STEP_BYTES


async def test_ordinary_chunks_are_accepted() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(LIMIT // 200):
            await response.write(bytes(200))
        return response

    async with site(handler) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        for _ in range(3):
            assert await fetcher.fetch(server.url, LIMIT, "f") == bytes(LIMIT // 200 * 200)
