"""Fetching media over real sockets: sizes, status codes, times and invalid responses."""

import asyncio
import gzip

import pytest
from aiohttp import web

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site
from tests.unit.router.fetching import LIMIT, LOOPBACK, Names, failure
from triptych.router.errors import TooLarge
from triptych.router.media.fetch import Fetcher
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
