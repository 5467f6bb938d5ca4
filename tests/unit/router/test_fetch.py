"""Fetching media over real sockets: sizes, status codes, times, slow hosts and invalid responses."""

import asyncio
import contextlib
import gzip
from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site
from tests.unit.router.fetching import LIMIT, LOOPBACK, Names, failure
from triptych.router.errors import TooLarge
from triptych.router.media.fetch import MAX_FETCHES_PER_CLIENT, MAX_FETCHES_PER_HOST, Fetcher
from triptych.router.media.response_guard import FRAMING_BYTES, STEP_BYTES
from triptych.router.memory import Budget, Reservation


async def test_url_is_fetched_as_written() -> None:
    body = bytes(range(256)) * 500
    async with site(says(body)) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert await fetcher.fetch(f"{server.url}/a%2Fb.png?b=%2F&c=+%20{{}}", LIMIT, "f") == body
        assert server.requests[0].raw_path == "/a%2Fb.png?b=%2F&c=+%20{}"


async def test_request_has_no_cookie_or_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sets_a_cookie(request: web.Request) -> web.Response:
        response = web.Response(body=b"a")
        response.set_cookie("who", "you")
        return response

    # A name, since aiohttp stores no cookies for IP addresses.
    names = Names("127.0.0.1")
    async with (
        site(sets_a_cookie) as server,
        site(hangs) as proxy,
        Fetcher(LOOPBACK, GUARD_SECONDS, names) as fetcher,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        for _ in range(2):
            url = server.url.replace("127.0.0.1", "a.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"a"
        assert not proxy.requests
        for request in server.requests:
            assert request.method == "GET"
            assert set(request.headers) <= {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
            assert request.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [204, 206, 304, 404, 503])
async def test_only_status_200_is_accepted(status: int) -> None:
    async with site(says(b"", status)) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert str(status) in await failure(fetcher, server.url)


@pytest.mark.parametrize("declared", [True, False])
async def test_size_limit_is_exact(declared: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        size = int(request.path.strip("/"))
        response = web.StreamResponse()
        if declared:
            response.content_length = size
        await response.prepare(request)
        for at in range(0, size, 50_000):
            await response.write(bytes(min(50_000, size - at)))
        # A larger body has no end.
        return response if size == LIMIT else await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert len(await fetcher.fetch(f"{server.url}/{LIMIT}", LIMIT, "f")) == LIMIT
        with pytest.raises(TooLarge, match=f"^here: .*{LIMIT}"):
            await fetcher.fetch(f"{server.url}/{LIMIT + 1}", LIMIT, "here")


async def test_bytes_are_counted_as_they_arrive() -> None:
    memory = Reservation(Budget(LIMIT))

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(1000))
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        task = asyncio.create_task(fetcher.fetch(server.url, LIMIT, "f", memory=memory))
        await eventually(lambda: memory.held == 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip"])
async def test_compressed_body_is_refused(encoding: str) -> None:
    bomb = gzip.compress(bytes(20 << 20))
    assert len(bomb) < LIMIT
    async with (
        site(says(bomb, Content_Encoding=encoding)) as server,
        Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher,
    ):
        assert "compressed" in await failure(fetcher, server.url)


@pytest.mark.parametrize("sends", ["nothing", "one byte", "a trickle"])
async def test_slow_server_times_out(sends: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if sends != "nothing":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"a")
        while sends == "a trickle":
            await asyncio.sleep(0.01)
            await response.write(b"a")
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, 0.1) as fetcher:
        assert await failure(fetcher, server.url) == "it took more than 0.1 seconds"


async def test_closed_port_is_reported() -> None:
    async with Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert "connect" in await failure(fetcher, "http://127.0.0.1:1/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "ssh", "half", "endless header"],
)
async def test_invalid_response_is_reported(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert "HTTP" in await failure(fetcher, f"http://127.0.0.1:{port}/")


async def test_slow_host_does_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    clock = loop.time
    both = (ip_network("127.0.0.0/30"),)
    async with (
        site(hangs) as slow,
        site(says(), "127.0.0.2") as quick,
        Fetcher(both, GUARD_SECONDS) as fetcher,
    ):
        tasks = [
            asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f"))
            for _ in range(4 * MAX_FETCHES_PER_CLIENT)
        ]
        await slow.until_requests(MAX_FETCHES_PER_HOST)
        assert await fetcher.fetch(quick.url, LIMIT, "f") == b"media"
        assert len(slow.requests) == MAX_FETCHES_PER_HOST
        # An hour passes: those with a slot time out, and the next ones start with their full time.
        monkeypatch.setattr(loop, "time", lambda: clock() + 3600)
        await eventually(lambda: sum(task.done() for task in tasks) == MAX_FETCHES_PER_HOST)
        await slow.until_requests(2 * MAX_FETCHES_PER_HOST)
        assert sum(task.done() for task in tasks) == MAX_FETCHES_PER_HOST
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
